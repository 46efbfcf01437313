// Entry points and launches of modulate_dense.hpp.

#include "cuda/modulate/modulate_dense.hpp"
#include "cuda/norm/norm_run.hpp"

#define SPADE_MODULATE_DENSE(dtype, T)                                                                             \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_dense_##dtype(                             \
        spade::DensePointers<T> of, spade::ElementwiseShape shape, float slope, int32_t wide) {                    \
        if (wide != 0 && shape.nhwc) spade::modulate_dense<T, spade::kWide<T>, true>(of, shape, slope);            \
        if (wide != 0 && !shape.nhwc) spade::modulate_dense<T, spade::kWide<T>, false>(of, shape, slope);          \
        if (wide == 0 && shape.nhwc) spade::modulate_dense<T, 1, true>(of, shape, slope);                          \
        if (wide == 0 && !shape.nhwc) spade::modulate_dense<T, 1, false>(of, shape, slope);                        \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                           \
        spade_modulate_dense_backward_##dtype(spade::DenseBackwardPointers<T> of, spade::ElementwiseShape shape,   \
                                              int64_t stride, float slope, int32_t scaled, int32_t wide) {         \
        constexpr int V = spade::kWide<T>;                                                                         \
        if (wide != 0 && shape.nhwc)                                                                               \
            spade::modulate_dense_backward<T, V, true>(of, shape, stride, slope, scaled != 0);                     \
        if (wide != 0 && !shape.nhwc)                                                                              \
            spade::modulate_dense_backward<T, V, false>(of, shape, stride, slope, scaled != 0);                    \
        if (wide == 0 && shape.nhwc)                                                                               \
            spade::modulate_dense_backward<T, 1, true>(of, shape, stride, slope, scaled != 0);                     \
        if (wide == 0 && !shape.nhwc)                                                                              \
            spade::modulate_dense_backward<T, 1, false>(of, shape, stride, slope, scaled != 0);                    \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_modulate_plane_##dtype(                             \
        spade::PlanePointers<T> of, spade::ElementwiseShape shape, float slope, float epsilon, int32_t wide) {     \
        __shared__ spade::Vector<T, spade::kWide<T>> plane[spade::kPlaneBytes / spade::kWideBytes];                \
        __shared__ float sums[spade::kReduceThreads * spade::kWide<T>];                                            \
        T* values = plane[0].values;                                                                               \
        constexpr int V = spade::kWide<T>;                                                                         \
        if (wide != 0 && shape.nhwc) spade::modulate_plane<T, V, true>(of, shape, slope, epsilon, values, sums);   \
        if (wide != 0 && !shape.nhwc) spade::modulate_plane<T, V, false>(of, shape, slope, epsilon, values, sums); \
        if (wide == 0 && shape.nhwc) spade::modulate_plane<T, 1, true>(of, shape, slope, epsilon, values, sums);   \
        if (wide == 0 && !shape.nhwc) spade::modulate_plane<T, 1, false>(of, shape, slope, epsilon, values, sums); \
    }

SPADE_MODULATE_DENSE(float32, float)
SPADE_MODULATE_DENSE(float16, __half)
SPADE_MODULATE_DENSE(bfloat16, __nv_bfloat16)
#undef SPADE_MODULATE_DENSE

namespace spade {
namespace {

template <typename T>
struct Kernels {
    void (*forward)(DensePointers<T>, ElementwiseShape, float, int32_t);
    void (*backward)(DenseBackwardPointers<T>, ElementwiseShape, int64_t, float, int32_t, int32_t);
    void (*plane)(PlanePointers<T>, ElementwiseShape, float, float, int32_t);
};

template <typename Run>
int32_t with_kernels(int64_t dtype, const Run& run) {
    if (dtype == SPADE_CUDA_FLOAT16)
        return run(Kernels<__half>{spade_modulate_dense_float16, spade_modulate_dense_backward_float16,
                                   spade_modulate_plane_float16});
    if (dtype == SPADE_CUDA_BFLOAT16)
        return run(Kernels<__nv_bfloat16>{spade_modulate_dense_bfloat16, spade_modulate_dense_backward_bfloat16,
                                          spade_modulate_plane_bfloat16});
    return run(Kernels<float>{spade_modulate_dense_float32, spade_modulate_dense_backward_float32,
                              spade_modulate_plane_float32});
}

template <typename T>
const T* read(const void* pointer) {
    return static_cast<const T*>(pointer);
}

float slope_of(int64_t is_leaky) { return is_leaky != 0 ? kSlope : 1.0f; }

// The checks that the forward and the backward pass share.
int32_t check_dense(const NormShape& shape, std::initializer_list<const void*> maps, const float* mean,
                    const float* rstd, std::initializer_list<int64_t> strides, const void* scratch,
                    int64_t scratch_bytes) {
    if (any_null(maps) || (mean == nullptr) != (rstd == nullptr)) return SPADE_CUDA_ERROR_NULL;
    if (mean == nullptr && shape.norm != SPADE_CUDA_NORM_GIVEN) return SPADE_CUDA_ERROR_NULL;
    if (const int32_t status = check_norm(shape, scratch, scratch_bytes); status != SPADE_CUDA_OK) return status;
    for (int64_t stride : strides)
        if (stride < (shape.nhwc() ? shape.channels : shape.channels * shape.pixels)) return SPADE_CUDA_ERROR_SIZE;
    if (!aligned(maps, element_bytes(shape.dtype)) || !aligned({mean, rstd}, 4)) return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

template <typename T>
int32_t run_plane(const spade_modulate_dense& args, const NormShape& shape,
                  void (*kernel)(PlanePointers<T>, ElementwiseShape, float, float, int32_t), void* stream) {
    const int64_t width = access_width(shape, {args.modulation_stride}, {args.x, args.gamma, args.beta, args.out});
    const ElementwiseShape rows = elementwise_shape(shape, args.modulation_stride, shape.channels);
    const int threads_x = shape.nhwc() ? static_cast<int>(kPlaneChannels<T> / width) : 1;
    const Launch grid{shape.n * planes_across(rows, kPlaneChannels<T>), threads_x, kThreads / threads_x};
    const PlanePointers<T> of{read<T>(args.x), read<T>(args.gamma), read<T>(args.beta),
                              args.mean,       args.rstd,           static_cast<T*>(args.out)};
    return launch(kernel, grid, stream, of, rows, slope_of(args.leaky), static_cast<float>(args.epsilon),
                  static_cast<int32_t>(width > 1));
}

}  // namespace
}  // namespace spade

int32_t spade_cuda_modulate_dense(const spade_modulate_dense* args, void* stream) {
    using namespace spade;
    if (args == nullptr) return SPADE_CUDA_ERROR_NULL;
    const NormShape shape{args->n, args->pixels, args->channels, args->norm, args->dtype, args->layout};
    const int32_t checked = check_dense(shape, {args->x, args->gamma, args->beta, args->out}, args->mean, args->rstd,
                                        {args->modulation_stride}, args->scratch, args->scratch_bytes);
    if (checked != SPADE_CUDA_OK) return checked;
    return with_kernels(args->dtype, [&]<typename T>(const Kernels<T>& kernels) {
        if (args->norm == SPADE_CUDA_NORM_INSTANCE && plane_fits(args->pixels, sizeof(T), shape.nhwc()))
            return run_plane<T>(*args, shape, kernels.plane, stream);
        int64_t stride = args->statistics_stride;
        if (args->norm != SPADE_CUDA_NORM_GIVEN) {
            stride = computed_stride(shape);
            const int32_t status = run_statistics(shape, args->x, args->mean, args->rstd,
                                                  static_cast<float>(args->epsilon), args->scratch, stream);
            if (status != SPADE_CUDA_OK) return status;
        }
        const int64_t width =
            access_width(shape, {args->modulation_stride}, {args->x, args->gamma, args->beta, args->out});
        const DensePointers<T> of{read<T>(args->x), read<T>(args->gamma), read<T>(args->beta),
                                  args->mean,       args->rstd,           static_cast<T*>(args->out)};
        return launch_elementwise(kernels.forward, shape, width, stream, of,
                                  elementwise_shape(shape, args->modulation_stride, stride), slope_of(args->leaky),
                                  static_cast<int32_t>(width > 1));
    });
}

int32_t spade_cuda_modulate_dense_backward(const spade_modulate_dense_backward* args, void* stream) {
    using namespace spade;
    if (args == nullptr) return SPADE_CUDA_ERROR_NULL;
    const NormShape shape{args->n, args->pixels, args->channels, args->norm, args->dtype, args->layout};
    const int32_t checked = check_dense(
        shape, {args->x, args->gamma, args->beta, args->dy, args->dx, args->dgamma, args->dbeta}, args->mean,
        args->rstd, {args->modulation_stride, args->gradient_stride}, args->scratch, args->scratch_bytes);
    if (checked != SPADE_CUDA_OK) return checked;
    return with_kernels(args->dtype, [&]<typename T>(const Kernels<T>& kernels) {
        const bool through = args->norm != SPADE_CUDA_NORM_GIVEN;
        const int64_t stride = through ? computed_stride(shape) : args->statistics_stride;
        const int64_t width =
            access_width(shape, {args->modulation_stride, args->gradient_stride},
                         {args->x, args->gamma, args->beta, args->dy, args->dx, args->dgamma, args->dbeta});
        const DenseBackwardPointers<T> of{read<T>(args->x),
                                          read<T>(args->gamma),
                                          read<T>(args->beta),
                                          read<T>(args->dy),
                                          args->mean,
                                          args->rstd,
                                          static_cast<T*>(args->dx),
                                          static_cast<T*>(args->dgamma),
                                          static_cast<T*>(args->dbeta)};
        const int32_t status =
            launch_elementwise(kernels.backward, shape, width, stream, of,
                               elementwise_shape(shape, args->modulation_stride, stride), args->gradient_stride,
                               slope_of(args->leaky), static_cast<int32_t>(!through), static_cast<int32_t>(width > 1));
        if (status != SPADE_CUDA_OK || !through) return status;
        return run_norm_backward(shape, args->x, args->dx, args->mean, args->rstd, args->dx, args->scratch, stream);
    });
}
