// Tensor cores for float16 and bfloat16: a warp multiplies a (16 x 16) by b (16 x 8) and sums in float32.
//
// Lane l holds, in pairs of neighbours (PTX ISA, mma.m16n8k16):
//   a      [r][c], [r + 8][c], [r][c + 8], [r + 8][c + 8]    with r = l / 4, c = 2 (l % 4), pairs along a row
//   b      [c][r], [c + 8][r]                                pairs down a column
//   sums   [r][c], [r + 8][c]                                pairs along a row
#ifndef SPADE_CUDA_TENSOR_CORE_HPP
#define SPADE_CUDA_TENSOR_CORE_HPP

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__

namespace spade {

// Loads four 8 x 8 matrices from shared memory. Lane 8 m + i passes the address of row i (16 bytes) of matrix m. Lane l
// receives the pair at [l / 4][2 (l % 4)] of each matrix.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}

#define SPADE_MMA(types)                                                                \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." types                         \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

// sums += a x b.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, __half>)
        SPADE_MMA("f16.f16");
    else
        SPADE_MMA("bf16.bf16");
}

#undef SPADE_MMA

// The shared memory of a block whose size the launch chooses, up to all of a multiprocessor.
__device__ __forceinline__ void* dynamic_shared() {
    extern __shared__ __align__(1024) unsigned char memory[];
    return memory;
}

}  // namespace spade

#else
#include <tensor_core_emulated.h>
#endif

#endif
