// Entry points and launches of norm.hpp.

#include "cuda/norm/norm_run.hpp"

#define SPADE_NORM(dtype, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256, 2) spade_norm_statistics_##dtype(                               \
        const T* x, spade::ReduceShape shape, spade::ReduceTargets targets, int32_t wide) {                           \
        if (wide != 0)                                                                                                \
            spade::reduce_groups<T, spade::kWide<T>, spade::Moments>({x, nullptr, nullptr, nullptr}, shape, targets); \
        else                                                                                                          \
            spade::reduce_groups<T, 1, spade::Moments>({x, nullptr, nullptr, nullptr}, shape, targets);               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        spade_norm_sums_##dtype(const T* x, const T* g, const float* mean, const float* rstd,                         \
                                spade::ReduceShape shape, spade::ReduceTargets targets, int32_t wide) {               \
        if (wide != 0)                                                                                                \
            spade::reduce_groups<T, spade::kWide<T>, spade::GradientSums>({x, g, mean, rstd}, shape, targets);        \
        else                                                                                                          \
            spade::reduce_groups<T, 1, spade::GradientSums>({x, g, mean, rstd}, shape, targets);                      \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        spade_norm_apply_##dtype(const T* x, const T* g, const float* mean, const float* rstd, const float* first,    \
                                 const float* second, T* dx, spade::ElementwiseShape shape, int32_t wide) {           \
        if (wide != 0 && shape.nhwc)                                                                                  \
            spade::apply_gradient<T, spade::kWide<T>, true>(x, g, mean, rstd, first, second, dx, shape);              \
        if (wide != 0 && !shape.nhwc)                                                                                 \
            spade::apply_gradient<T, spade::kWide<T>, false>(x, g, mean, rstd, first, second, dx, shape);             \
        if (wide == 0 && shape.nhwc) spade::apply_gradient<T, 1, true>(x, g, mean, rstd, first, second, dx, shape);   \
        if (wide == 0 && !shape.nhwc) spade::apply_gradient<T, 1, false>(x, g, mean, rstd, first, second, dx, shape); \
    }

SPADE_NORM(float32, float)
SPADE_NORM(float16, __half)
SPADE_NORM(bfloat16, __nv_bfloat16)
#undef SPADE_NORM

namespace spade {
namespace {

template <typename T>
struct Kernels {
    void (*statistics)(const T*, ReduceShape, ReduceTargets, int32_t);
    void (*sums)(const T*, const T*, const float*, const float*, ReduceShape, ReduceTargets, int32_t);
    void (*apply)(const T*, const T*, const float*, const float*, const float*, const float*, T*, ElementwiseShape,
                  int32_t);
};

// Calls `run` with the kernels of a dtype.
template <typename Run>
int32_t with_kernels(int64_t dtype, const Run& run) {
    if (dtype == SPADE_CUDA_FLOAT16)
        return run(Kernels<__half>{spade_norm_statistics_float16, spade_norm_sums_float16, spade_norm_apply_float16});
    if (dtype == SPADE_CUDA_BFLOAT16)
        return run(Kernels<__nv_bfloat16>{spade_norm_statistics_bfloat16, spade_norm_sums_bfloat16,
                                          spade_norm_apply_bfloat16});
    return run(Kernels<float>{spade_norm_statistics_float32, spade_norm_sums_float32, spade_norm_apply_float32});
}

struct Reduction {
    ReduceShape shape;
    Launch launch;
};

Reduction plan_reduction(const NormShape& of, int64_t width, int64_t resident) {
    ReduceShape shape{static_cast<int32_t>(of.groups()),
                      static_cast<int32_t>(of.n / of.groups()),
                      static_cast<int32_t>(of.channels),
                      static_cast<int32_t>(of.pixels),
                      1,
                      of.nhwc(),
                      divisor_of(of.nhwc() ? 1 : of.pixels / width)};
    const int threads_x = of.nhwc() ? static_cast<int>(std::min<int64_t>(of.channels / width, 32)) : 1;
    const auto lanes = static_cast<int32_t>(width);
    const int64_t units = static_cast<int64_t>(shape.groups) * units_across(shape, threads_x, lanes);
    const ReduceLaunch reduce = launch_reduce(units, threads_x, group_items(shape, lanes), resident);
    shape.splits = reduce.splits;
    return {shape, reduce.launch};
}

int32_t clear_counters(const NormScratch& scratch, int32_t splits, void* stream) {
    if (splits == 1) return SPADE_CUDA_OK;
    return launch_status(cudaMemsetAsync(scratch.counters, 0, static_cast<size_t>(scratch.counter_bytes),
                                         static_cast<cudaStream_t>(stream)));
}

}  // namespace

int32_t run_statistics(const NormShape& shape, const void* x, float* mean, float* rstd, float epsilon, void* memory,
                       void* stream) {
    const NormScratch scratch = norm_scratch(shape, memory);
    const int64_t width = access_width(shape, {}, {x});
    return with_kernels(shape.dtype, [&]<typename T>(const Kernels<T>& kernels) {
        int64_t resident = 0;
        if (const int32_t status = resident_blocks(kernels.statistics, 0, resident); status != SPADE_CUDA_OK)
            return status;
        const Reduction plan = plan_reduction(shape, width, resident);
        if (const int32_t status = clear_counters(scratch, plan.shape.splits, stream); status != SPADE_CUDA_OK)
            return status;
        const ReduceTargets targets{mean, rstd, scratch.partials, scratch.counters, epsilon};
        return launch(kernels.statistics, plan.launch, stream, static_cast<const T*>(x), plan.shape, targets,
                      static_cast<int32_t>(width > 1));
    });
}

int32_t run_norm_backward(const NormShape& shape, const void* x, const void* g, const float* mean, const float* rstd,
                          void* dx, void* memory, void* stream) {
    const NormScratch scratch = norm_scratch(shape, memory);
    const int64_t width = access_width(shape, {}, {x, g, dx});
    return with_kernels(shape.dtype, [&]<typename T>(const Kernels<T>& kernels) {
        int64_t resident = 0;
        if (const int32_t status = resident_blocks(kernels.sums, 0, resident); status != SPADE_CUDA_OK) return status;
        const Reduction plan = plan_reduction(shape, width, resident);
        if (const int32_t status = clear_counters(scratch, plan.shape.splits, stream); status != SPADE_CUDA_OK)
            return status;
        const ReduceTargets targets{scratch.first, scratch.second, scratch.partials, scratch.counters, 0};
        const auto wide = static_cast<int32_t>(width > 1);
        const auto *values = static_cast<const T*>(x), *gradients = static_cast<const T*>(g);
        const int32_t status =
            launch(kernels.sums, plan.launch, stream, values, gradients, mean, rstd, plan.shape, targets, wide);
        if (status != SPADE_CUDA_OK) return status;
        return launch_elementwise(kernels.apply, shape, width, stream, values, gradients, mean, rstd,
                                  static_cast<const float*>(scratch.first), static_cast<const float*>(scratch.second),
                                  static_cast<T*>(dx), elementwise_shape(shape, 0, computed_stride(shape)), wide);
    });
}

}  // namespace spade

int64_t spade_cuda_norm_scratch_bytes(int64_t n, int64_t pixels, int64_t channels, int64_t norm) {
    using namespace spade;
    if (norm == SPADE_CUDA_NORM_GIVEN) return 0;
    const NormShape shape{n, pixels, channels, norm, SPADE_CUDA_FLOAT32, SPADE_CUDA_NHWC};
    const int32_t status = check_norm(shape, nullptr, 0);
    return status == SPADE_CUDA_ERROR_SCRATCH ? norm_scratch(shape, nullptr).bytes : -status;
}

int32_t spade_cuda_norm_statistics(const spade_norm_statistics* args, void* stream) {
    using namespace spade;
    if (args == nullptr || any_null({args->x, args->mean, args->rstd})) return SPADE_CUDA_ERROR_NULL;
    const NormShape shape{args->n, args->pixels, args->channels, args->norm, args->dtype, args->layout};
    if (args->norm == SPADE_CUDA_NORM_GIVEN) return SPADE_CUDA_ERROR_SIZE;
    if (const int32_t status = check_norm(shape, args->scratch, args->scratch_bytes); status != SPADE_CUDA_OK)
        return status;
    if (!aligned({args->x}, element_bytes(args->dtype)) || !aligned({args->mean, args->rstd}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return run_statistics(shape, args->x, args->mean, args->rstd, static_cast<float>(args->epsilon), args->scratch,
                          stream);
}

int32_t spade_cuda_norm_backward(const spade_norm_backward* args, void* stream) {
    using namespace spade;
    if (args == nullptr || any_null({args->x, args->g, args->mean, args->rstd, args->dx})) return SPADE_CUDA_ERROR_NULL;
    const NormShape shape{args->n, args->pixels, args->channels, args->norm, args->dtype, args->layout};
    if (args->norm == SPADE_CUDA_NORM_GIVEN) return SPADE_CUDA_ERROR_SIZE;
    if (const int32_t status = check_norm(shape, args->scratch, args->scratch_bytes); status != SPADE_CUDA_OK)
        return status;
    if (!aligned({args->x, args->g, args->dx}, element_bytes(args->dtype)) || !aligned({args->mean, args->rstd}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return run_norm_backward(shape, args->x, args->g, args->mean, args->rstd, args->dx, args->scratch, stream);
}
