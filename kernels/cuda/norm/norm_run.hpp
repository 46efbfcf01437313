// The host side of norm.hpp, which the dense form shares: checks, scratch and launches.
#ifndef SPADE_CUDA_NORM_RUN_HPP
#define SPADE_CUDA_NORM_RUN_HPP

#include "cuda/host/check.hpp"
#include "cuda/norm/norm.hpp"

namespace spade {

struct NormShape {
    int64_t n, pixels, channels, norm, dtype, layout;

    int64_t groups() const { return norm == SPADE_CUDA_NORM_INSTANCE ? n : 1; }
    bool nhwc() const { return layout == SPADE_CUDA_NHWC; }
};

struct NormScratch {
    float *first, *second;  // [groups][C]
    float* partials;
    unsigned* counters;
    int64_t bytes, counter_bytes;
};

// Scratch that suffices for every dtype and layout: the widest unit (256 channels) has the most partial results.
inline NormScratch norm_scratch(const NormShape& shape, void* base) {
    const int64_t statistics = shape.groups() * shape.channels;
    const int64_t partials = std::max(statistics, std::min(statistics * kMaxSplits, kMaxSplitUnits * 256));
    NormScratch scratch{};
    int64_t at = 0;
    const auto take = [&](int64_t bytes) {
        char* start = base == nullptr ? nullptr : static_cast<char*>(base) + at;
        at += ceil_div(bytes, 16) * 16;
        return start;
    };
    scratch.counter_bytes = kMaxSplitUnits * 4;
    scratch.counters = reinterpret_cast<unsigned*>(take(scratch.counter_bytes));
    scratch.first = reinterpret_cast<float*>(take(statistics * 4));
    scratch.second = reinterpret_cast<float*>(take(statistics * 4));
    scratch.partials = reinterpret_cast<float*>(take(partials * 12));
    scratch.bytes = at;
    return scratch;
}

inline int32_t check_norm(const NormShape& shape, const void* scratch, int64_t scratch_bytes) {
    if (!is_dtype(shape.dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(shape.layout, SPADE_CUDA_NCHW, SPADE_CUDA_NHWC)) return SPADE_CUDA_ERROR_LAYOUT;
    if (!is_map(shape.n, shape.pixels, 1, shape.channels) || shape.n > kMaxPixels / shape.channels)
        return SPADE_CUDA_ERROR_SIZE;
    if (!within(shape.norm, SPADE_CUDA_NORM_GIVEN, SPADE_CUDA_NORM_BATCH)) return SPADE_CUDA_ERROR_SIZE;
    if (shape.norm == SPADE_CUDA_NORM_GIVEN) return SPADE_CUDA_OK;
    if (scratch == nullptr || !aligned({scratch}, 16) || scratch_bytes < norm_scratch(shape, nullptr).bytes)
        return SPADE_CUDA_ERROR_SCRATCH;
    return SPADE_CUDA_OK;
}

inline ElementwiseShape elementwise_shape(const NormShape& shape, int64_t modulation_stride,
                                          int64_t statistics_stride) {
    return {static_cast<int32_t>(shape.n),
            static_cast<int32_t>(shape.pixels),
            static_cast<int32_t>(shape.channels),
            modulation_stride,
            statistics_stride,
            shape.nhwc(),
            divisor_of(shape.nhwc() ? shape.pixels : shape.channels)};
}

inline int64_t computed_stride(const NormShape& shape) {
    return shape.norm == SPADE_CUDA_NORM_INSTANCE ? shape.channels : 0;
}

// The number of elements of an access: 16 bytes if the row length, the strides and the addresses allow it, else 1.
inline int64_t access_width(const NormShape& shape, std::initializer_list<int64_t> strides,
                            std::initializer_list<const void*> pointers) {
    const int64_t wide = kWideBytes / element_bytes(shape.dtype);
    if ((shape.nhwc() ? shape.channels : shape.pixels) % wide != 0 || !aligned(pointers, kWideBytes)) return 1;
    for (int64_t stride : strides)
        if (stride % wide != 0) return 1;
    return wide;
}

// Launches an elementwise kernel over the rows of a map, with accesses of `width` elements.
template <typename... Parameters, typename... Arguments>
int32_t launch_elementwise(void (*kernel)(Parameters...), const NormShape& shape, int64_t width, void* stream,
                           Arguments... arguments) {
    const int64_t rows = shape.nhwc() ? shape.n * shape.pixels : shape.n * shape.channels;
    const int64_t length = shape.nhwc() ? shape.channels : shape.pixels;
    return launch_resident(
        kernel, 0, [&](int64_t resident) { return launch_split_rows(rows, length / width, resident); }, stream,
        arguments...);
}

int32_t run_statistics(const NormShape& shape, const void* x, float* mean, float* rstd, float epsilon, void* scratch,
                       void* stream);
int32_t run_norm_backward(const NormShape& shape, const void* x, const void* g, const float* mean, const float* rstd,
                          void* dx, void* scratch, void* stream);

}  // namespace spade

#endif
