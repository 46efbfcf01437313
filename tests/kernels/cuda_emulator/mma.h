// Products of 16 x 16 x 16 by a warp on the CPU: each lane holds every 32nd element of a matrix.
#ifndef SPADE_EMULATOR_MMA_H
#define SPADE_EMULATOR_MMA_H

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
enum layout_t { mem_row_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
    T x[8];
};

inline float widen(float value) { return value; }
inline float widen(__half value) { return __half2float(value); }
inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

inline void check_address(const void* pointer, size_t pitch_bytes) {
    if (reinterpret_cast<uintptr_t>(pointer) % 32 == 0 && pitch_bytes % 16 == 0) return;
    std::fprintf(stderr, "[emulator] a matrix that is not at a multiple of 32 bytes, or rows not of 16\n");
    std::abort();
}

template <typename Fragment, typename T>
void load_matrix_sync(Fragment& fragment, const T* from, unsigned pitch) {
    check_address(from, pitch * sizeof(T));
    __syncwarp();
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned element = emulated_lane() + 32 * i;
        fragment.x[i] = from[element / 16 * pitch + element % 16];
    }
}

template <typename Fragment, typename T>
void store_matrix_sync(T* to, const Fragment& fragment, unsigned pitch, layout_t) {
    check_address(to, pitch * sizeof(T));
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned element = emulated_lane() + 32 * i;
        to[element / 16 * pitch + element % 16] = fragment.x[i];
    }
    __syncwarp();
}

template <typename Fragment>
void fill_fragment(Fragment& fragment, float value) {
    for (auto& element : fragment.x) element = value;
}

template <typename C, typename A, typename B>
void mma_sync(C& d, const A& a, const B& b, const C& c) {
    static float left[32][256], right[32][256];  // of each warp
    float *own_left = left[emulated_warp()], *own_right = right[emulated_warp()];
    for (unsigned i = 0; i < 8; ++i) {
        own_left[emulated_lane() + 32 * i] = widen(a.x[i]);
        own_right[emulated_lane() + 32 * i] = widen(b.x[i]);
    }
    __syncwarp();
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned element = emulated_lane() + 32 * i, row = element / 16, column = element % 16;
        float sum = c.x[i];
        for (unsigned k = 0; k < 16; ++k) sum += own_left[row * 16 + k] * own_right[k * 16 + column];
        d.x[i] = sum;
    }
    __syncwarp();
}

}  // namespace nvcuda::wmma

#endif
