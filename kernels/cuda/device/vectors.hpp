// Elements of a map: loads and stores of up to 16 bytes, and conversions, since all arithmetic is in float32.
#ifndef SPADE_CUDA_VECTORS_HPP
#define SPADE_CUDA_VECTORS_HPP

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace spade {

constexpr float kSlope = 0.2f;  // of the leaky ReLU, below zero
constexpr int kWideBytes = 16;  // the widest access of a thread

// The number of elements of T in the widest access.
template <typename T>
constexpr int kWide = kWideBytes / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
    return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
    return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// N neighbouring elements, which one access loads or stores.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
    T values[N];
};

template <typename T, int N>
__device__ __forceinline__ Vector<T, N> load(const T* address) {
    return *reinterpret_cast<const Vector<T, N>*>(address);
}

template <typename T, int N>
__device__ __forceinline__ void store(T* address, const float (&values)[N]) {
    Vector<T, N> wide;
#pragma unroll
    for (int i = 0; i < N; ++i) wide.values[i] = from_float<T>(values[i]);
    *reinterpret_cast<Vector<T, N>*>(address) = wide;
}

__device__ __forceinline__ float leaky(float value) { return value > 0 ? value : value * kSlope; }

}  // namespace spade

#endif
