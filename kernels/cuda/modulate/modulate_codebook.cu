// Entry points and launch of modulate_codebook.hpp.
//
// The kernels have C names and take plain pointers and sizes, so that their PTX can be launched by any driver code:
//   spade_modulate_codebook_<layout>_<dtype>          any map, element by element
//   spade_modulate_codebook_wide_<dtype>[_norm][_up]  NHWC maps with 16-byte accesses; with a norm; upsampled
//   spade_modulate_codebook_<layout>_<dtype>_plain    no norm; inputs, then 32-bit sizes, then the output: the order
//                                                     in which a TensorRT ahead-of-time plugin passes arguments
// Launch: NHWC with launch_rows(groups, channels / vector), NCHW with launch_blocks(tiles). Every grid is correct.

#include "cuda/host/check.hpp"
#include "cuda/modulate/modulate_codebook.hpp"

namespace spade {
namespace {

__device__ __forceinline__ float slope_of(int32_t is_leaky) { return is_leaky != 0 ? kSlope : 1.0f; }

}  // namespace
}  // namespace spade

#define SPADE_MODULATE_NHWC(V, up, norm) \
    spade::modulate_nhwc<Element, V, up, norm>(x, entries, index, mean, rstd, out, shape, spade::slope_of(leaky))

#define SPADE_MODULATE_CODEBOOK(dtype, T)                                                                     \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_codebook_nhwc_##dtype(                \
        const T* __restrict__ x, const T* __restrict__ entries, const int32_t* __restrict__ index,            \
        const float* __restrict__ mean, const float* __restrict__ rstd, T* __restrict__ out,                  \
        spade::ModulateShape shape, int32_t leaky) {                                                          \
        using Element = T;                                                                                    \
        if (mean != nullptr && shape.shift != 0) SPADE_MODULATE_NHWC(1, true, true);                          \
        if (mean != nullptr && shape.shift == 0) SPADE_MODULATE_NHWC(1, false, true);                         \
        if (mean == nullptr && shape.shift != 0) SPADE_MODULATE_NHWC(1, true, false);                         \
        if (mean == nullptr && shape.shift == 0) SPADE_MODULATE_NHWC(1, false, false);                        \
    }                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_codebook_nchw_##dtype(                \
        const T* __restrict__ x, const T* __restrict__ entries, const int32_t* __restrict__ index,            \
        const float* __restrict__ mean, const float* __restrict__ rstd, T* __restrict__ out,                  \
        spade::ModulateShape shape, int32_t leaky) {                                                          \
        spade::modulate_nchw<T>(x, entries, index, mean, rstd, out, shape, spade::slope_of(leaky));           \
    }                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_codebook_nhwc_##dtype##_plain(        \
        const T* __restrict__ x, const T* __restrict__ entries, const int32_t* __restrict__ index, int32_t n, \
        int32_t height, int32_t width, int32_t channels, int32_t rows, int32_t shift, int32_t leaky,          \
        T* __restrict__ out) {                                                                                \
        using Element = T;                                                                                    \
        const spade::ModulateShape shape{n, height, width, channels, shift, rows, 0};                         \
        const float *mean = nullptr, *rstd = nullptr;                                                         \
        constexpr int V = spade::kWide<T>;                                                                    \
        const bool wide = channels % V == 0;                                                                  \
        if (wide && shift != 0) SPADE_MODULATE_NHWC(V, true, false);                                          \
        if (wide && shift == 0) SPADE_MODULATE_NHWC(V, false, false);                                         \
        if (!wide && shift != 0) SPADE_MODULATE_NHWC(1, true, false);                                         \
        if (!wide && shift == 0) SPADE_MODULATE_NHWC(1, false, false);                                        \
    }                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_codebook_nchw_##dtype##_plain(        \
        const T* __restrict__ x, const T* __restrict__ entries, const int32_t* __restrict__ index, int32_t n, \
        int32_t height, int32_t width, int32_t channels, int32_t rows, int32_t shift, int32_t leaky,          \
        T* __restrict__ out) {                                                                                \
        const spade::ModulateShape shape{n, height, width, channels, shift, rows, 0};                         \
        spade::modulate_nchw<T>(x, entries, index, nullptr, nullptr, out, shape, spade::slope_of(leaky));     \
    }

SPADE_MODULATE_CODEBOOK(float32, float)
SPADE_MODULATE_CODEBOOK(float16, __half)
SPADE_MODULATE_CODEBOOK(bfloat16, __nv_bfloat16)
#undef SPADE_MODULATE_CODEBOOK

// The variants that most calls use are kernels of their own. In one kernel with the others they would need as many
// registers as the largest variant, and fewer threads would fit a multiprocessor.
#define SPADE_MODULATE_WIDE(name, T, up, norm)                                                                 \
    extern "C" __global__ void __launch_bounds__(256, norm || spade::kPacksFloats ? 2 : 3)                     \
        spade_modulate_codebook_wide_##name(const T* __restrict__ x, const T* __restrict__ entries,            \
                                            const int32_t* __restrict__ index, const float* __restrict__ mean, \
                                            const float* __restrict__ rstd, T* __restrict__ out,               \
                                            spade::ModulateShape shape, int32_t leaky) {                       \
        using Element = T;                                                                                     \
        SPADE_MODULATE_NHWC(spade::kWide<T>, up, norm);                                                        \
    }
#define SPADE_MODULATE_WIDES(dtype, T)                \
    SPADE_MODULATE_WIDE(dtype, T, false, false)       \
    SPADE_MODULATE_WIDE(dtype##_up, T, true, false)   \
    SPADE_MODULATE_WIDE(dtype##_norm, T, false, true) \
    SPADE_MODULATE_WIDE(dtype##_norm_up, T, true, true)

SPADE_MODULATE_WIDES(float32, float)
SPADE_MODULATE_WIDES(float16, __half)
SPADE_MODULATE_WIDES(bfloat16, __nv_bfloat16)
#undef SPADE_MODULATE_WIDES
#undef SPADE_MODULATE_WIDE
#undef SPADE_MODULATE_NHWC

namespace spade {
namespace {

template <typename T>
using ModulateKernel = void (*)(const T*, const T*, const int32_t*, const float*, const float*, T*, ModulateShape,
                                int32_t);

template <typename T>
struct Kernels {
    ModulateKernel<T> nchw, nhwc;
    ModulateKernel<T> wide[2][2];  // NHWC: [with a norm][upsampled]
};

template <typename T>
int32_t run(const spade_modulate_codebook& args, void* stream, const Kernels<T>& kernels) {
    const ModulateShape shape = modulate_shape(args);
    const bool wide = args.channels % kWide<T> == 0 && aligned({args.x, args.entries, args.out}, kWideBytes);
    const bool last = args.layout == SPADE_CUDA_NHWC;
    const ModulateKernel<T> kernel = !last  ? kernels.nchw
                                     : wide ? kernels.wide[args.mean != nullptr][args.shift]
                                            : kernels.nhwc;
    const int64_t groups = args.shift != 0 ? group_count<true>(shape) : group_count<false>(shape);
    const auto grid_of = [&](int64_t resident) {
        return last ? launch_rows(groups, args.channels / (wide ? kWide<T> : 1), resident)
                    : launch_blocks(tile_count(shape), resident);
    };
    return launch_resident(kernel, 0, grid_of, stream, static_cast<const T*>(args.x),
                           static_cast<const T*>(args.entries), args.index, args.mean, args.rstd,
                           static_cast<T*>(args.out), shape, static_cast<int32_t>(args.leaky));
}

int32_t check(const spade_modulate_codebook* args) {
    if (args == nullptr || any_null({args->x, args->entries, args->index, args->out})) return SPADE_CUDA_ERROR_NULL;
    if ((args->mean == nullptr) != (args->rstd == nullptr)) return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args->dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(args->layout, SPADE_CUDA_NCHW, SPADE_CUDA_NHWC)) return SPADE_CUDA_ERROR_LAYOUT;
    if (!is_map(args->n, args->height, args->width, args->channels) || !within(args->shift, 0, 1) ||
        !within(args->rows, 1, kMaxPixels))
        return SPADE_CUDA_ERROR_SIZE;
    if (args->shift == 1 && (args->height % 2 != 0 || args->width % 2 != 0)) return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args->x, args->entries, args->out}, element_bytes(args->dtype)) ||
        !aligned({args->index, args->mean, args->rstd}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

}  // namespace
}  // namespace spade

extern "C" int32_t spade_cuda_modulate_codebook(const spade_modulate_codebook* args, void* stream) {
    using namespace spade;
    if (const int32_t status = check(args); status != SPADE_CUDA_OK) return status;
#define SPADE_KERNELS(dtype)                                                                                \
    {                                                                                                       \
        spade_modulate_codebook_nchw_##dtype, spade_modulate_codebook_nhwc_##dtype, {                       \
            {spade_modulate_codebook_wide_##dtype, spade_modulate_codebook_wide_##dtype##_up}, {            \
                spade_modulate_codebook_wide_##dtype##_norm, spade_modulate_codebook_wide_##dtype##_norm_up \
            }                                                                                               \
        }                                                                                                   \
    }
    if (args->dtype == SPADE_CUDA_FLOAT16) return run<__half>(*args, stream, SPADE_KERNELS(float16));
    if (args->dtype == SPADE_CUDA_BFLOAT16) return run<__nv_bfloat16>(*args, stream, SPADE_KERNELS(bfloat16));
    return run<float>(*args, stream, SPADE_KERNELS(float32));
#undef SPADE_KERNELS
}
