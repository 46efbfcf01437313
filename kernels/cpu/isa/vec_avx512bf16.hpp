// Vectors of the ISA avx512bf16: bf16 in memory, float32 in registers. Include only where the flags of vec_avx512.hpp
// and -mavx512bf16 are given.
#ifndef SPADE_VEC_AVX512BF16_HPP
#define SPADE_VEC_AVX512BF16_HPP

#include <cstdint>
#include <cstring>

#include "cpu/isa/bf16.hpp"
#include "cpu/isa/vec_avx512.hpp"

namespace spade {
namespace {

// vec_avx512.hpp explains the members.
struct Avx512Bf16 : Avx512 {
    using Element = bf16;
    using Input = bf16;
    using Operand = __m512bh;
    static constexpr int depth = 2;

    static F load(const bf16* from) {
        const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    }
    // Rounds to nearest even; subnormals become zero.
    static void store(bf16* to, F value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
    }

    // A block is two registers, the even and the odd channels: bf16 pairs are the halves of 32-bit lanes already.
    static void load_block(const bf16* from, F* block) {
        const __m512i bits = _mm512_loadu_si512(from);
        block[0] = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
        block[1] = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
    }
    static void store_block(bf16* to, const F* block) {
        const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                                    22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(block[1], block[0]));
        _mm512_storeu_si512(to, _mm512_permutexvar_epi16(interleave, halves));
    }
    static int lane(int i) { return i < 16 ? 2 * i : 2 * i - 31; }

    static float scalar(const bf16* from) { return to_float(*from); }

    static Element element(float value) { return to_bf16(value); }

    static Operand broadcast(const bf16* x) {
        int32_t pair;
        std::memcpy(&pair, x, sizeof pair);
        return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    }
    static Operand weights(const bf16* w) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(w)); }
    static F dot(Operand x, Operand w, F sum) { return _mm512_dpbf16_ps(sum, x, w); }
};

}  // namespace
}  // namespace spade

#endif
