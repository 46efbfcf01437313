// Hopper's warpgroup products: four warps multiply 64 x 16 by 16 x 256, both in shared memory, and sum in float32
// registers (PTX ISA, wgmma).
//
// The products run asynchronously: begin, multiply, commit, then wait before reading the sums or overwriting a factor.
// Both factors are stored in rows of 64 elements (128 bytes), in groups of eight rows (1024 bytes). Chunk c of 16 bytes
// of row r is stored at place c ^ (r % 8), which is the hardware's 128-byte swizzle. A lane holds its sums in the order
// of mma.m16n8k16, with 16 rows for each warp.
#ifndef SPADE_CUDA_WARPGROUP_HPP
#define SPADE_CUDA_WARPGROUP_HPP

#include "cuda/device/tensor_core.hpp"

// These functions exist when compiled for the host, for the emulator, or for sm_90a.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SPADE_HAS_WGMMA
#endif

#if !defined(__CUDACC__)
#include <warpgroup_emulated.h>
#elif defined(SPADE_HAS_WGMMA)

namespace spade {

// The descriptor of a factor whose rows begin at `first`, a multiple of 1024 bytes (plus 32 n bytes to begin at column
// 16 n): the address, 1024 bytes between groups of rows, and the 128-byte swizzle.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* first) {
    const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(first));
    return (address & 0x3FFFF) >> 4 | UINT64_C(1) << 16 | UINT64_C(1024) >> 4 << 32 | UINT64_C(1) << 62;
}

// Makes this thread's writes to shared memory visible to the products that follow the next barrier.
__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the last `Groups` committed groups of products still run.
template <int Groups>
__device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}

// Keeps the compiler from moving reads of the sums before the wait; nothing else tells it that they depend on the wait.
__device__ __forceinline__ void take_sums(float (&sums)[32][4]) {
#pragma unroll
    for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(sums[i / 4][i % 4])::"memory");
}

// sums += a x b. sums[j][i] of lane l of warp w is [16 w + l / 4 + 8 (i / 2)][8 j + 2 (l % 4) + i % 2].
#define SPADE_FOUR(i) "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])
#define SPADE_SIXTEEN(i) SPADE_FOUR(i), SPADE_FOUR(i + 1), SPADE_FOUR(i + 2), SPADE_FOUR(i + 3)
#define SPADE_SUMS                                                                                                 \
    SPADE_SIXTEEN(0), SPADE_SIXTEEN(4), SPADE_SIXTEEN(8), SPADE_SIXTEEN(12), SPADE_SIXTEEN(16), SPADE_SIXTEEN(20), \
        SPADE_SIXTEEN(24), SPADE_SIXTEEN(28)
#define SPADE_WGMMA(types)                                                                                            \
    asm volatile(                                                                                                     \
        "{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\nwgmma.mma_async.sync.aligned.m64n256k16.f32." types              \
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
        "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "   \
        "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, "   \
        "%65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "   \
        "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, "  \
        "%106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, "      \
        "%123, %124, %125, %126, %127}, %128, %129, add, 1, 1, 0, 0;\n}"                                              \
        : SPADE_SUMS                                                                                                  \
        : "l"(a), "l"(b))

template <typename T>
__device__ __forceinline__ void multiply_group(float (&sums)[32][4], uint64_t a, uint64_t b) {
    if constexpr (std::is_same_v<T, __half>)
        SPADE_WGMMA("f16.f16");
    else
        SPADE_WGMMA("bf16.bf16");
}

#undef SPADE_WGMMA
#undef SPADE_SUMS
#undef SPADE_SIXTEEN
#undef SPADE_FOUR

}  // namespace spade

#endif

#endif
