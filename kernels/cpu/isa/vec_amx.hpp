// Vectors of the ISA amx: products read bf16; plain maps and entries are float16, which has the size of bf16 and eight
// times the precision. Include only where the flags of vec_avx512bf16.hpp and -mavx512fp16 are given.
#ifndef SPADE_VEC_AMX_HPP
#define SPADE_VEC_AMX_HPP

#include <cstdint>

#include "cpu/isa/vec_avx512bf16.hpp"

namespace spade {

// float16 as its bits. A type of its own, like bf16.
struct half {
    uint16_t bits;
};

namespace {

// Computes in float32. vec_avx512.hpp explains the members.
struct Amx : Avx512Bf16 {
    using Element = half;
    using Avx512Bf16::store;
    static constexpr bool bytes = true;

    static F load(const half* from) { return _mm512_cvtxph_ps(_mm256_loadu_ph(from)); }
    static void store(half* to, F value) { _mm256_storeu_ph(to, _mm512_cvtxps_ph(value)); }
    // Rounds to nearest even and limits to 0 .. 255.
    static void store(uint8_t* to, F value) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_max_ps(value, zero()));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(whole));
    }

    static void load_block(const half* from, F* block) { block[0] = load(from), block[1] = load(from + 16); }
    static int lane(int i) { return i; }

    static float scalar(const half* from) {
        return _mm_cvtss_f32(_mm_cvtsh_ss(_mm_setzero_ps(), _mm_castsi128_ph(_mm_cvtsi32_si128(from->bits))));
    }
};

// Computes in float16, one block of channels a register, which halves the instructions of a modulation. Modulated maps
// are normalised, so values lie within float16's range, and the results are rounded to bf16 in any case.
struct AmxHalf {
    using Element = half;
    using Input = bf16;
    using F = __m512h;
    static constexpr int width = 32;

    static F zero() { return _mm512_setzero_ph(); }
    static F set(float value) { return join(_mm512_set1_ps(value), _mm512_set1_ps(value)); }
    static F load_f32(const float* from) { return join(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)); }

    static void load_block(const half* from, F* block) { *block = _mm512_loadu_ph(from); }
    static void store_block(bf16* to, const F* block) {
        const __m512i bits = _mm512_castph_si512(*block);
        const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
        const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
        _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
    static int lane(int i) { return i; }

    static F sub(F a, F b) { return _mm512_sub_ph(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ph(a, b); }
    static F max(F a, F b) { return _mm512_max_ph(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ph(a, b, c); }

 private:
    static F join(__m512 low, __m512 high) {
        const __m512i bits = _mm512_castsi256_si512(_mm256_castph_si256(_mm512_cvtxps_ph(low)));
        return _mm512_castsi512_ph(_mm512_inserti64x4(bits, _mm256_castph_si256(_mm512_cvtxps_ph(high)), 1));
    }
};

}  // namespace
}  // namespace spade

#endif
