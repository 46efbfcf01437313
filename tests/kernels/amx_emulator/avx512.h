// The intrinsics of AVX-512, its bf16 and VNNI that the kernels and this emulator use, on processors with AVX2 only.
// Include only where -mavx2, -mfma and -mf16c are given, and no flag of AVX-512.
//
// The compiler's own vectors of 64 bytes hold the registers: it splits their operators into halves of 32 bytes, each of
// which is one instruction of AVX2. Each lane has the bits of a processor with AVX-512.
#ifndef SPADE_EMULATOR_AVX512_H
#define SPADE_EMULATOR_AVX512_H

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "bfloat16.h"

namespace amx_emulator {

// A register as its two halves.
template <typename Whole, typename Half>
struct Halves {
    Half low, high;
    explicit Halves(Half both) : low(both), high(both) {}
    Halves(Half first, Half second) : low(first), high(second) {}
    explicit Halves(Whole whole) { std::memcpy(this, &whole, sizeof whole); }
    operator Whole() const {
        Whole whole;
        std::memcpy(&whole, this, sizeof whole);
        return whole;
    }
};
using Floats16 = Halves<__m512, __m256>;
using Ints16 = Halves<__m512i, __m256i>;
using Doubles8 = Halves<__m512d, __m256d>;

template <typename To, typename From>
inline To cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// The part of a register at `which` times the part's own size.
template <typename Half, typename Whole>
inline Half half_of(const Whole& whole, int which) {
    Half half;
    std::memcpy(&half, reinterpret_cast<const char*>(&whole) + which * sizeof half, sizeof half);
    return half;
}

// ---- Loads, stores and constants ----

template <typename Whole>
inline Whole load512(const void* from) {
    Whole whole;
    std::memcpy(&whole, from, sizeof whole);
    return whole;
}
template <typename Whole>
inline void store512(void* to, const Whole& whole) {
    std::memcpy(to, &whole, sizeof whole);
}
inline __m512 set_floats(float value) { return Floats16(_mm256_set1_ps(value)); }
inline __m512i set_ints(int32_t value) { return Ints16(_mm256_set1_epi32(value)); }

// From the last word to the first.
template <typename... Words>
inline __m512i set_words(Words... words) {
    const int given[] = {words...};
    uint16_t to[32];
    static_assert(sizeof...(words) == 32);
    for (int i = 0; i < 32; ++i) to[i] = static_cast<uint16_t>(given[31 - i]);
    return load512<__m512i>(to);
}

// ---- float32 ----

inline __m512 max512(__m512 a, __m512 b) {
    const Floats16 x(a), y(b);
    return Floats16(_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high));
}
inline __m512 min512(__m512 a, __m512 b) {
    const Floats16 x(a), y(b);
    return Floats16(_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high));
}
inline __m512 fmadd512(__m512 a, __m512 b, __m512 c) {
    const Floats16 x(a), y(b), z(c);
    return Floats16(_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high));
}
inline __m512d fmadd512(__m512d a, __m512d b, __m512d c) {
    const Doubles8 x(a), y(b), z(c);
    return Doubles8(_mm256_fmadd_pd(x.low, y.low, z.low), _mm256_fmadd_pd(x.high, y.high, z.high));
}

// ---- Integers ----

inline __m512i shift_left(__m512i a, int bits) {
    const Ints16 x(a);
    return Ints16(_mm256_slli_epi32(x.low, bits), _mm256_slli_epi32(x.high, bits));
}
inline __m512i permute_words(__m512i index, __m512i a) {
    uint16_t of[32], from[32], to[32];
    store512(of, index);
    store512(from, a);
    for (int i = 0; i < 32; ++i) to[i] = from[of[i] & 31];
    return load512<__m512i>(to);
}
// Unsigned int32, limited to 255.
inline __m128i limited_to_bytes(__m512i a) {
    uint32_t from[16];
    uint8_t to[16];
    store512(from, a);
    for (int i = 0; i < 16; ++i) to[i] = static_cast<uint8_t>(from[i] < 255 ? from[i] : 255);
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(to));
}
// VPDPBUSD: adds four products of a byte and an int8 to each int32, which wraps.
inline __m512i add_byte_products(__m512i sum, __m512i a, __m512i b) {
    uint32_t sums[16];
    uint8_t bytes[64];
    int8_t weights[64];
    store512(sums, sum);
    store512(bytes, a);
    store512(weights, b);
    for (int i = 0; i < 64; ++i) sums[i / 4] += static_cast<uint32_t>(bytes[i] * weights[i]);
    return load512<__m512i>(sums);
}

// ---- Conversions ----

inline __m512 from_ints(__m512i a) {
    const Ints16 x(a);
    return Floats16(_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high));
}
inline __m512i to_ints(__m512 a) {
    const Floats16 x(a);
    return Ints16(_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high));
}
inline __m512i from_words(__m256i a) {
    return Ints16(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                  _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)));
}
inline __m512 from_halves(__m256i a) {
    return Floats16(_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
template <int rounding>
inline __m256i to_halves512(__m512 a) {
    const Floats16 x(a);
    return _mm256_set_m128i(_mm256_cvtps_ph(x.high, rounding), _mm256_cvtps_ph(x.low, rounding));
}
inline __m512d to_doubles(__m256 a) {
    return Doubles8(_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
}
inline __m512 add_pairs512(__m512 sum, __m512bh a, __m512bh b) {
    const Floats16 sums(sum);
    const Ints16 x(cast<__m512i>(a)), y(cast<__m512i>(b));
    return Floats16(add_pairs(sums.low, x.low, y.low), add_pairs(sums.high, x.high, y.high));
}
inline __m256bh to_bfloats(__m512 a) {
    const Floats16 x(a);
    return cast<__m256bh>(upper_halves(rounded_to_bfloats(x.low), rounded_to_bfloats(x.high)));
}
inline __m512bh two_to_bfloats(__m512 high, __m512 low) {
    return cast<__m512bh>(Ints16(cast<__m256i>(to_bfloats(low)), cast<__m256i>(to_bfloats(high))));
}
// Rounds to zero: to the nearest value first, which is put back by one step where it lies beyond.
inline __m256 truncated(__m512d a) {
    double from[8];
    float to[8];
    store512(from, a);
    for (int i = 0; i < 8; ++i) {
        to[i] = static_cast<float>(from[i]);
        if (!(__builtin_fabs(static_cast<double>(to[i])) > __builtin_fabs(from[i]))) continue;
        uint32_t bits;
        std::memcpy(&bits, &to[i], sizeof bits);
        bits -= 1;
        std::memcpy(&to[i], &bits, sizeof bits);
    }
    return _mm256_loadu_ps(to);
}
inline __mmask8 differs(__m512d a, __m512d b) {
    double x[8], y[8];
    store512(x, a);
    store512(y, b);
    unsigned mask = 0;
    for (int i = 0; i < 8; ++i) mask |= static_cast<unsigned>(x[i] < y[i] || x[i] > y[i]) << i;
    return static_cast<__mmask8>(mask);
}
inline __m256i or_where(__m256i otherwise, __mmask8 mask, __m256i a, __m256i b) {
    const __m256i bit = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    const __m256i here = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask), bit), bit);
    return _mm256_blendv_epi8(otherwise, _mm256_or_si256(a, b), here);
}

}  // namespace amx_emulator

// clang-format off
#define _mm512_setzero_ps() amx_emulator::set_floats(0.0f)
#define _mm512_set1_ps(value) amx_emulator::set_floats(value)
#define _mm512_setzero_si512() amx_emulator::set_ints(0)
#define _mm512_set1_epi32(value) amx_emulator::set_ints(value)
#define _mm512_set_epi16(...) amx_emulator::set_words(__VA_ARGS__)
#define _mm512_loadu_ps(from) amx_emulator::load512<__m512>(from)
#define _mm512_load_ps(from) amx_emulator::load512<__m512>(from)
#define _mm512_loadu_si512(from) amx_emulator::load512<__m512i>(from)
#define _mm512_load_si512(from) amx_emulator::load512<__m512i>(from)
#define _mm512_storeu_ps(to, a) amx_emulator::store512(to, a)
#define _mm512_store_ps(to, a) amx_emulator::store512(to, a)
#define _mm512_storeu_si512(to, a) amx_emulator::store512(to, a)
#define _mm512_store_si512(to, a) amx_emulator::store512(to, a)

#define _mm512_castsi512_ps(a) amx_emulator::cast<__m512>(a)
#define _mm512_castps512_ps256(a) amx_emulator::half_of<__m256>(a, 0)
#define _mm512_castps512_ps128(a) amx_emulator::half_of<__m128>(a, 0)
#define _mm512_castsi512_si256(a) amx_emulator::half_of<__m256i>(a, 0)
#define _mm512_extracti64x4_epi64(a, which) amx_emulator::half_of<__m256i>(a, which)
#define _mm512_extractf32x8_ps(a, which) amx_emulator::half_of<__m256>(a, which)
#define _mm512_castps256_ps512(a) amx_emulator::Floats16(a, _mm256_setzero_ps())
#define _mm512_castsi256_si512(a) amx_emulator::Ints16(a, _mm256_setzero_si256())
#define _mm512_insertf32x8(a, b, which) amx_emulator::Floats16(amx_emulator::half_of<__m256>(a, 0), b)
#define _mm512_inserti64x4(a, b, which) amx_emulator::Ints16(amx_emulator::half_of<__m256i>(a, 0), b)
#define _mm512_zextps128_ps512(a) amx_emulator::Floats16(_mm256_zextps128_ps256(a), _mm256_setzero_ps())

#define _mm512_add_ps(a, b) ((a) + (b))
#define _mm512_sub_ps(a, b) ((a) - (b))
#define _mm512_mul_ps(a, b) ((a) * (b))
#define _mm512_max_ps(a, b) amx_emulator::max512(a, b)
#define _mm512_min_ps(a, b) amx_emulator::min512(a, b)
#define _mm512_fmadd_ps(a, b, c) amx_emulator::fmadd512(a, b, c)
#define _mm512_fmadd_pd(a, b, c) amx_emulator::fmadd512(a, b, c)
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_slli_epi32(a, bits) amx_emulator::shift_left(a, bits)
#define _mm512_permutexvar_epi16(index, a) amx_emulator::permute_words(index, a)
#define _mm512_dpbusd_epi32(sum, a, b) amx_emulator::add_byte_products(sum, a, b)

#define _mm512_cvtepi32_ps(a) amx_emulator::from_ints(a)
#define _mm512_cvtps_epi32(a) amx_emulator::to_ints(a)
#define _mm512_cvtusepi32_epi8(a) amx_emulator::limited_to_bytes(a)
#define _mm512_cvtepu16_epi32(a) amx_emulator::from_words(a)
#define _mm512_cvtph_ps(a) amx_emulator::from_halves(a)
#define _mm512_cvtps_ph(a, rounding) amx_emulator::to_halves512<rounding>(a)
#define _mm512_cvtneps_pbh(a) amx_emulator::to_bfloats(a)
#define _mm512_cvtne2ps_pbh(high, low) amx_emulator::two_to_bfloats(high, low)
#define _mm512_dpbf16_ps(sum, a, b) amx_emulator::add_pairs512(sum, a, b)
#define _mm512_cvtps_pd(a) amx_emulator::to_doubles(a)
#define _mm512_cvt_roundpd_ps(a, rounding) amx_emulator::truncated(a)
#define _mm512_cmp_pd_mask(a, b, predicate) amx_emulator::differs(a, b)
#define _mm256_mask_or_epi32(otherwise, mask, a, b) amx_emulator::or_where(otherwise, mask, a, b)
// clang-format on

#endif
