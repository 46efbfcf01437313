// The arithmetic of AVX512-FP16: every result is the exact result, rounded once to nearest even. Denormal float16 stay,
// whatever MXCSR says, as Intel's manual defines it for these instructions. float32 holds no denormal on the way: the
// product of the two smallest float16 is 2^-48.
#ifndef SPADE_EMULATOR_FLOAT16_H
#define SPADE_EMULATOR_FLOAT16_H

#include <immintrin.h>

namespace amx_emulator {

struct Half8 {
    __m128i bits;
};
struct Half16 {
    __m256i bits;
};
struct Half32 {
    __m512i bits;
};

// 32 float16 as float32, which is exact, and back, which rounds.
struct Floats {
    __m512 low, high;
};
inline Floats widened(Half32 a) {
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(a.bits)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(a.bits, 1))};
}
inline Half32 rounded(__m512 low, __m512 high) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m512i bits = _mm512_castsi256_si512(_mm512_cvtps_ph(low, nearest));
    return {_mm512_inserti64x4(bits, _mm512_cvtps_ph(high, nearest), 1)};
}

// ---- Loads, stores and conversions ----

inline Half16 loadu16(const void* from) { return {_mm256_loadu_si256(static_cast<const __m256i*>(from))}; }
inline void storeu16(void* to, Half16 a) { _mm256_storeu_si256(static_cast<__m256i*>(to), a.bits); }
inline Half32 loadu32(const void* from) { return {_mm512_loadu_si512(from)}; }
inline Half32 zero32() { return {_mm512_setzero_si512()}; }
inline __m512 to_floats(Half16 a) { return _mm512_cvtph_ps(a.bits); }
inline Half16 to_halves(__m512 a) { return {_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline __m128 first_to_float(__m128 upper, Half8 a) {
    return _mm_move_ss(upper, _mm512_castps512_ps128(_mm512_cvtph_ps(_mm256_castsi128_si256(a.bits))));
}

// ---- Arithmetic ----

// A sum of two float16 that float32 rounds still rounds to the right float16, because float32's 24 bits are twice 11
// and two more (Figueroa, "When is double rounding innocuous?"). A product is exact in float32.
inline Half32 sub(Half32 a, Half32 b) {
    const Floats x = widened(a), y = widened(b);
    return rounded(_mm512_sub_ps(x.low, y.low), _mm512_sub_ps(x.high, y.high));
}
inline Half32 mul(Half32 a, Half32 b) {
    const Floats x = widened(a), y = widened(b);
    return rounded(_mm512_mul_ps(x.low, y.low), _mm512_mul_ps(x.high, y.high));
}
inline Half32 max(Half32 a, Half32 b) {
    const Floats x = widened(a), y = widened(b);
    return rounded(_mm512_max_ps(x.low, y.low), _mm512_max_ps(x.high, y.high));
}

// Eight doubles -> float32, rounded to odd: an inexact result has its last bit set, so that the rounding to float16
// after it still sees on which side of a tie the value lies.
inline __m256 to_odd(__m512d a) {
    const __m256 truncated = _mm512_cvt_roundpd_ps(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    const __mmask8 inexact = _mm512_cmp_pd_mask(_mm512_cvtps_pd(truncated), a, _CMP_NEQ_OQ);
    const __m256i bits = _mm256_castps_si256(truncated);
    return _mm256_castsi256_ps(_mm256_mask_or_epi32(bits, inexact, bits, _mm256_set1_epi32(1)));
}

// a * b + c of float16 values. The product is exact in float64. The sum is exact too, or one term is so much smaller
// than the other that float64's rounding reaches no tie of float16.
inline __m512 fma_to_odd(__m512 a, __m512 b, __m512 c) {
    __m256 out[2];
    for (int half = 0; half < 2; ++half) {
        const auto part = [half](__m512 of) {
            return _mm512_cvtps_pd(half == 0 ? _mm512_castps512_ps256(of) : _mm512_extractf32x8_ps(of, 1));
        };
        out[half] = to_odd(_mm512_fmadd_pd(part(a), part(b), part(c)));
    }
    return _mm512_insertf32x8(_mm512_castps256_ps512(out[0]), out[1], 1);
}
inline Half32 fmadd(Half32 a, Half32 b, Half32 c) {
    const Floats x = widened(a), y = widened(b), z = widened(c);
    return rounded(fma_to_odd(x.low, y.low, z.low), fma_to_odd(x.high, y.high, z.high));
}

}  // namespace amx_emulator

#define __m128h amx_emulator::Half8
#define __m256h amx_emulator::Half16
#define __m512h amx_emulator::Half32
#define _mm256_loadu_ph(from) amx_emulator::loadu16(from)
#define _mm256_storeu_ph(to, a) amx_emulator::storeu16(to, a)
#define _mm512_loadu_ph(from) amx_emulator::loadu32(from)
#define _mm512_setzero_ph() amx_emulator::zero32()
#define _mm_castsi128_ph(a) (amx_emulator::Half8{a})
#define _mm256_castph_si256(a) ((a).bits)
#define _mm512_castph_si512(a) ((a).bits)
#define _mm512_castsi512_ph(a) (amx_emulator::Half32{a})
#define _mm_cvtsh_ss(upper, a) amx_emulator::first_to_float(upper, a)
#define _mm512_cvtxph_ps(a) amx_emulator::to_floats(a)
#define _mm512_cvtxps_ph(a) amx_emulator::to_halves(a)
#define _mm512_sub_ph(a, b) amx_emulator::sub(a, b)
#define _mm512_mul_ph(a, b) amx_emulator::mul(a, b)
#define _mm512_max_ph(a, b) amx_emulator::max(a, b)
#define _mm512_fmadd_ph(a, b, c) amx_emulator::fmadd(a, b, c)

#endif
