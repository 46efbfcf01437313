// Vectors of the ISA avx2: 8 float32 lanes. Include only where -mavx2 and -mfma are given.
#ifndef SPADE_VEC_AVX2_HPP
#define SPADE_VEC_AVX2_HPP

#include <immintrin.h>

namespace spade {
namespace {

// vec_avx512.hpp explains the members.
struct Avx2 {
    using Element = float;
    using Input = float;
    using F = __m256;
    using Operand = __m256;
    static constexpr int width = 8;
    static constexpr int depth = 1;
    static constexpr int registers = 16;
    static constexpr bool bytes = false;

    static F zero() { return _mm256_setzero_ps(); }
    static F set(float value) { return _mm256_set1_ps(value); }
    static F widen(__m128 low) { return _mm256_zextps128_ps256(low); }
    static F load_f32(const float* from) { return _mm256_loadu_ps(from); }
    static void store_f32(float* to, F value) { _mm256_storeu_ps(to, value); }
    static F load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, F value) { _mm256_storeu_ps(to, value); }

    static void load_block(const float* from, F* block) {
        for (int i = 0; i < 4; ++i) block[i] = load(from + i * width);
    }
    static void store_block(float* to, const F* block) {
        for (int i = 0; i < 4; ++i) store(to + i * width, block[i]);
    }
    static int lane(int i) { return i; }

    static float scalar(const float* from) { return *from; }

    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F max(F a, F b) { return _mm256_max_ps(a, b); }
    static F min(F a, F b) { return _mm256_min_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

    static Element element(float value) { return value; }

    static Operand broadcast(const float* x) { return _mm256_broadcast_ss(x); }
    static Operand weights(const float* w) { return _mm256_loadu_ps(w); }
    static F dot(Operand x, Operand w, F sum) { return _mm256_fmadd_ps(x, w, sum); }
};

}  // namespace
}  // namespace spade

#endif
