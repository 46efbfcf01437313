// Tensor cores of float16 and bfloat16, as PTX names them: a warp's product of 16 x 16 by 16 x 8, summed in float32.
//
// A lane holds of a (16 x 16) the pairs [l / 4][2 (l % 4)], [l / 4 + 8][..], [l / 4][.. + 8], [l / 4 + 8][.. + 8]; of b
// (16 x 8) the pairs down a column [2 (l % 4)][l / 4] and [2 (l % 4) + 8][l / 4]; of the sums (16 x 8) [l / 4][2 (l %
// 4)], its neighbour, and both eight rows below. (PTX ISA, mma.m16n8k16.)
#ifndef SPADE_CUDA_TENSOR_CORE_HPP
#define SPADE_CUDA_TENSOR_CORE_HPP

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__

namespace spade {

// Four matrices of 8 x 8 from shared memory: lane 8 m + i gives the address of row i, 16 bytes, of matrix m. A lane
// gets of each the pair at [l / 4][2 (l % 4)].
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

template <typename T>
__device__ __forceinline__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, __half>)
        SPADE_MMA("f16.f16");
    else
        SPADE_MMA("bf16.bf16");
}

#undef SPADE_MMA

// Shared memory whose size the launch says, up to all that a multiprocessor has.
__device__ __forceinline__ void* dynamic_shared() {
    extern __shared__ __align__(1024) unsigned char memory[];
    return memory;
}

}  // namespace spade

#else
#include <tensor_core_emulated.h>
#endif

#endif
