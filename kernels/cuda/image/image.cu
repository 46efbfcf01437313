// Entry points and launches of image.hpp.

#include "cuda/host/check.hpp"
#include "cuda/image/image.hpp"

#define SPADE_IMAGE(dtype, T)                                                                          \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_image_##dtype(spade::ImageConv<T> of) { \
        spade::image_any(of);                                                                          \
    }

SPADE_IMAGE(float32, float)
SPADE_IMAGE(float16, __half)
SPADE_IMAGE(bfloat16, __nv_bfloat16)
#undef SPADE_IMAGE

#define SPADE_IMAGE_WIDE(dtype, T)                                                                          \
    extern "C" __global__ void __launch_bounds__(256, 3) spade_image_wide_##dtype(spade::ImageConv<T> of) { \
        spade::image_half(of, *static_cast<spade::ImageShared<T>*>(spade::dynamic_shared()));               \
    }

SPADE_IMAGE_WIDE(float16, __half)
SPADE_IMAGE_WIDE(bfloat16, __nv_bfloat16)
#undef SPADE_IMAGE_WIDE

namespace spade {
namespace {

template <typename T>
using ImageKernel = void (*)(ImageConv<T>);

// `wide` is null for float32, which has no tensor-core kernel.
template <typename T>
int32_t run(const spade_image_conv& args, ImageKernel<T> any, ImageKernel<T> wide, void* stream) {
    const int64_t tiles = args.n * ceil_div(args.height, kImageTile) * ceil_div(args.width, kImageTile);
    const ImageConv<T> of{static_cast<const T*>(args.x),
                          args.constant,
                          static_cast<const T*>(args.weight),
                          args.bias,
                          args.values,
                          args.pixels,
                          static_cast<int32_t>(args.n),
                          static_cast<int32_t>(args.height),
                          static_cast<int32_t>(args.width),
                          static_cast<int32_t>(args.channels),
                          static_cast<int32_t>(tiles)};
    if (wide != nullptr && args.channels % 8 == 0 && aligned({args.x}, kWideBytes) && aligned({args.weight}, 4)) {
        constexpr auto kShared = static_cast<int64_t>(sizeof(ImageShared<T>));
        return launch_resident(
            wide, kShared, [&](int64_t resident) { return launch_blocks(tiles, resident, kShared); }, stream, of);
    }
    const int64_t blocks = ceil_div(args.n * args.height * args.width, kThreads);
    return launch_resident(any, 0, [&](int64_t resident) { return launch_blocks(blocks, resident); }, stream, of);
}

int32_t check(const spade_image_conv* args) {
    if (args == nullptr || any_null({args->x, args->weight, args->bias})) return SPADE_CUDA_ERROR_NULL;
    if (args->values == nullptr && args->pixels == nullptr) return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args->dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!is_map(args->n, args->height, args->width, args->channels)) return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args->x, args->weight}, element_bytes(args->dtype)) ||
        !aligned({args->constant, args->bias, args->values}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

}  // namespace
}  // namespace spade

int32_t spade_cuda_image_conv(const spade_image_conv* args, void* stream) {
    using namespace spade;
    if (const int32_t status = check(args); status != SPADE_CUDA_OK) return status;
    if (args->dtype == SPADE_CUDA_FLOAT16)
        return run<__half>(*args, spade_image_float16, spade_image_wide_float16, stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16)
        return run<__nv_bfloat16>(*args, spade_image_bfloat16, spade_image_wide_bfloat16, stream);
    return run<float>(*args, spade_image_float32, nullptr, stream);
}
