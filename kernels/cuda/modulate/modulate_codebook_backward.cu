// Entry points and launches of modulate_codebook_backward.hpp.

#include "cuda/modulate/modulate_codebook_backward.hpp"
#include "cuda/norm/norm_run.hpp"

#define SPADE_CODEBOOK_BACKWARD(dtype, T)                                                                            \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                             \
        spade_codebook_gradient_x_##dtype(spade::CodebookBackward<T> of, int32_t scaled, int32_t wide) {             \
        if (wide != 0) spade::codebook_gradient_x<T, spade::kWide<T>>(of, scaled != 0);                              \
        if (wide == 0) spade::codebook_gradient_x<T, 1>(of, scaled != 0);                                            \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                             \
        spade_codebook_gradient_atomic_##dtype(spade::CodebookBackward<T> of, int32_t wide) {                        \
        if (wide != 0) spade::codebook_gradient_atomic<T, spade::kWide<T>>(of);                                      \
        if (wide == 0) spade::codebook_gradient_atomic<T, 1>(of);                                                    \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_codebook_gradient_sorted_##dtype(                     \
        spade::CodebookBackward<T> of, const int32_t* sorted, const int64_t* order, float* partials, int32_t wide) { \
        if (wide != 0) spade::codebook_gradient_sorted<T, spade::kWide<T>>(of, sorted, order, partials);             \
        if (wide == 0) spade::codebook_gradient_sorted<T, 1>(of, sorted, order, partials);                           \
    }

SPADE_CODEBOOK_BACKWARD(float32, float)
SPADE_CODEBOOK_BACKWARD(float16, __half)
SPADE_CODEBOOK_BACKWARD(bfloat16, __nv_bfloat16)
#undef SPADE_CODEBOOK_BACKWARD

extern "C" __global__ void __launch_bounds__(256, 2)
    spade_codebook_gradient_join(const int32_t* sorted, const float* partials, float* dentries, int32_t pixels,
                                 int32_t rows, int32_t channels) {
    spade::codebook_gradient_join(sorted, partials, dentries, pixels, rows, channels);
}

namespace spade {
namespace {

template <typename T>
struct Kernels {
    void (*x)(CodebookBackward<T>, int32_t, int32_t);
    void (*atomic)(CodebookBackward<T>, int32_t);
    void (*sorted)(CodebookBackward<T>, const int32_t*, const int64_t*, float*, int32_t);
};

int64_t chunk_count(const spade_modulate_codebook_backward& args) {
    return ceil_div(args.n * args.height * args.width, kChunk);
}

int64_t scratch_bytes(const spade_modulate_codebook_backward& args) {
    return args.sorted == nullptr ? 0 : chunk_count(args) * 4 * args.channels * static_cast<int64_t>(sizeof(float));
}

template <typename T>
int32_t gradient_of_entries(const spade_modulate_codebook_backward& args, const CodebookBackward<T>& of, int32_t wide,
                            const Kernels<T>& kernels, void* stream) {
    const int64_t vectors = args.channels / (wide != 0 ? kWide<T> : 1), chunks = chunk_count(args);
    const auto bytes = static_cast<size_t>(args.rows * 2 * args.channels) * sizeof(float);
    const int32_t status = launch_status(cudaMemsetAsync(args.dentries, 0, bytes, static_cast<cudaStream_t>(stream)));
    if (status != SPADE_CUDA_OK) return status;
    const auto rows_of_chunks = [&](int64_t resident) { return launch_rows(chunks, vectors, resident); };
    if (args.sorted == nullptr) return launch_resident(kernels.atomic, 0, rows_of_chunks, stream, of, wide);
    auto* partials = static_cast<float*>(args.scratch);
    const int32_t summed =
        launch_resident(kernels.sorted, 0, rows_of_chunks, stream, of, args.sorted, args.order, partials, wide);
    if (summed != SPADE_CUDA_OK) return summed;
    const auto block_of_chunk = [&](int64_t resident) { return Launch{std::min(chunks, resident), 32, 8}; };
    return launch_resident(spade_codebook_gradient_join, 0, block_of_chunk, stream, args.sorted,
                           static_cast<const float*>(partials), args.dentries,
                           static_cast<int32_t>(args.n * args.height * args.width), of.shape.rows, of.shape.channels);
}

template <typename T>
int32_t run(const spade_modulate_codebook_backward& args, const Kernels<T>& kernels, void* stream) {
    const ModulateShape shape = modulate_shape(args);
    const CodebookBackward<T> of{static_cast<const T*>(args.x),
                                 static_cast<const T*>(args.entries),
                                 static_cast<const T*>(args.dy),
                                 args.index,
                                 args.mean,
                                 args.rstd,
                                 static_cast<T*>(args.dx),
                                 args.dentries,
                                 shape,
                                 args.leaky != 0 ? kSlope : 1.0f};
    const bool is_wide = args.channels % kWide<T> == 0 && aligned({args.x, args.entries, args.dy, args.dx}, kWideBytes);
    const auto wide = static_cast<int32_t>(is_wide);
    const int64_t groups = (args.n * args.height * args.width) >> (2 * args.shift);
    const int64_t vectors = args.channels / (is_wide ? kWide<T> : 1);
    const int32_t status = launch_resident(
        kernels.x, 0, [&](int64_t resident) { return launch_rows(groups, vectors, resident); }, stream, of,
        static_cast<int32_t>(args.unscaled == 0), wide);
    if (status != SPADE_CUDA_OK || args.dentries == nullptr) return status;
    return gradient_of_entries(args, of, wide, kernels, stream);
}

int32_t check(const spade_modulate_codebook_backward* args) {
    if (args == nullptr || any_null({args->x, args->entries, args->index, args->dy, args->dx}))
        return SPADE_CUDA_ERROR_NULL;
    if ((args->mean == nullptr) != (args->rstd == nullptr) || (args->sorted == nullptr) != (args->order == nullptr))
        return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args->dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!is_map(args->n, args->height, args->width, args->channels) || !within(args->shift, 0, 1) ||
        !within(args->rows, 1, kMaxPixels))
        return SPADE_CUDA_ERROR_SIZE;
    if (args->shift == 1 && (args->height % 2 != 0 || args->width % 2 != 0)) return SPADE_CUDA_ERROR_SIZE;
    if (args->dentries != nullptr && scratch_bytes(*args) > 0 &&
        (args->scratch == nullptr || args->scratch_bytes < scratch_bytes(*args) || !aligned({args->scratch}, 16)))
        return SPADE_CUDA_ERROR_SCRATCH;
    if (!aligned({args->x, args->entries, args->dy, args->dx}, element_bytes(args->dtype)) ||
        !aligned({args->index, args->mean, args->rstd, args->dentries, args->sorted}, 4) || !aligned({args->order}, 8))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

}  // namespace
}  // namespace spade

int64_t spade_cuda_modulate_codebook_backward_scratch_bytes(int64_t n, int64_t height, int64_t width,
                                                            int64_t channels) {
    using namespace spade;
    if (!is_map(n, height, width, channels)) return -SPADE_CUDA_ERROR_SIZE;
    return ceil_div(n * height * width, kChunk) * 4 * channels * static_cast<int64_t>(sizeof(float));
}

int32_t spade_cuda_modulate_codebook_backward(const spade_modulate_codebook_backward* args, void* stream) {
    using namespace spade;
    if (const int32_t status = check(args); status != SPADE_CUDA_OK) return status;
    if (args->dtype == SPADE_CUDA_FLOAT16)
        return run(*args,
                   Kernels<__half>{spade_codebook_gradient_x_float16, spade_codebook_gradient_atomic_float16,
                                   spade_codebook_gradient_sorted_float16},
                   stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16)
        return run(*args,
                   Kernels<__nv_bfloat16>{spade_codebook_gradient_x_bfloat16, spade_codebook_gradient_atomic_bfloat16,
                                          spade_codebook_gradient_sorted_bfloat16},
                   stream);
    return run(*args,
               Kernels<float>{spade_codebook_gradient_x_float32, spade_codebook_gradient_atomic_float32,
                              spade_codebook_gradient_sorted_float32},
               stream);
}
