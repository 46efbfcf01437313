// Vectors of the ISA avx512: 16 float32 lanes. Include only where -mavx512f, bw, dq and vl are given.
//
// The kernels take an ISA as their template argument V, a struct with these members:
//   Element          storage type T of plain maps and entries
//   Input            storage type I of padded maps, hidden rows and weights
//   F, width         a register of float32, and its lanes
//   depth            input channels that one dot multiplies
//   registers        vector registers of the processor
//   widen            four given lanes -> F, the other lanes zero
//   load, store      `width` Elements <-> F
//   load_f32, store_f32      `width` float32 in memory <-> F
//   load_block, store_block  32 Elements <-> 32 / width registers, in the cheapest order of channels: lane i of the
//                    block holds channel lane(i)
//   scalar           one Element -> float32
//   element          one float32 -> Input, for packing
//   bytes            whether store also rounds to uint8
//   Operand          argument of dot: broadcast(x) repeats `depth` channels of x in every lane; weights(w) reads
//                    width * depth Inputs [lane][depth]
//   dot(x, w, sum)   adds the products of each lane to sum, in float32
// The unnamed namespace gives every file its own copy, so that code compiled for one instruction set is never linked
// into the kernels of another.
#ifndef SPADE_VEC_AVX512_HPP
#define SPADE_VEC_AVX512_HPP

#include <immintrin.h>

namespace spade {
namespace {

struct Avx512 {
    using Element = float;
    using Input = float;
    using F = __m512;
    using Operand = __m512;
    static constexpr int width = 16;
    static constexpr int depth = 1;
    static constexpr int registers = 32;
    static constexpr bool bytes = false;

    static F zero() { return _mm512_setzero_ps(); }
    static F set(float value) { return _mm512_set1_ps(value); }
    static F widen(__m128 low) { return _mm512_zextps128_ps512(low); }
    static F load_f32(const float* from) { return _mm512_loadu_ps(from); }
    static void store_f32(float* to, F value) { _mm512_storeu_ps(to, value); }
    static F load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, F value) { _mm512_storeu_ps(to, value); }

    static void load_block(const float* from, F* block) {
        for (int i = 0; i < 2; ++i) block[i] = load(from + i * width);
    }
    static void store_block(float* to, const F* block) {
        for (int i = 0; i < 2; ++i) store(to + i * width, block[i]);
    }
    static int lane(int i) { return i; }

    static float scalar(const float* from) { return *from; }

    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

    static Element element(float value) { return value; }

    static Operand broadcast(const float* x) { return _mm512_set1_ps(*x); }
    static Operand weights(const float* w) { return _mm512_loadu_ps(w); }
    static F dot(Operand x, Operand w, F sum) { return _mm512_fmadd_ps(x, w, sum); }
};

}  // namespace
}  // namespace spade

#endif
