// What every elementwise kernel shares: a map seen as rows, and the loop of a thread over its vectors.
#ifndef SPADE_CUDA_ELEMENTWISE_HPP
#define SPADE_CUDA_ELEMENTWISE_HPP

#include "cuda/device/divisor.hpp"
#include "cuda/device/vectors.hpp"

namespace spade {

// A map as rows: a row is a pixel of C channels (NHWC) or a plane of pixels (NCHW).
struct ElementwiseShape {
    int32_t n, pixels, channels;  // pixels of one image
    int64_t modulation_stride;    // gamma and beta: elements between two pixels (NHWC) or two images (NCHW)
    int64_t statistics_stride;    // elements between the statistics of two images: C, or 0 if all images share them
    bool nhwc;
    Divisor image_rows;  // rows of one image: pixels (NHWC) or C
};

__host__ __device__ inline int32_t row_count(const ElementwiseShape& shape) {
    return shape.n * (shape.nhwc ? shape.pixels : shape.channels);
}

__host__ __device__ inline int32_t row_length(const ElementwiseShape& shape) {
    return shape.nhwc ? shape.channels : shape.pixels;
}

// Offsets in elements, of one element in the map, in gamma and beta, and in the statistics.
struct ElementPlace {
    int64_t map, modulation, statistics;
};

__host__ __device__ inline ElementPlace place_at(const ElementwiseShape& shape, int32_t row, int32_t element) {
    const int64_t map = static_cast<int64_t>(row) * row_length(shape) + element;
    const int32_t image = divide(row, shape.image_rows);
    if (shape.nhwc) return {map, row * shape.modulation_stride + element, image * shape.statistics_stride + element};
    const int32_t channel = row - image * shape.channels;
    return {map, image * shape.modulation_stride + static_cast<int64_t>(channel) * shape.pixels + element,
            image * shape.statistics_stride + channel};
}

// Calls body(place, row, element) for every vector of V elements that belongs to this thread. In an NHWC map a thread
// keeps its channels and walks down the pixels, so its statistics change only where the next image begins.
template <int V, bool Nhwc, typename Body>
__device__ __forceinline__ void for_each_vector(const ElementwiseShape& shape, const Body& body) {
    const int32_t rows = row_count(shape), vectors = row_length(shape) / V;
    const int32_t first_row = blockIdx.x * blockDim.y + threadIdx.y, rows_apart = gridDim.x * blockDim.y;
    const int32_t first_vector = blockIdx.y * blockDim.x + threadIdx.x, vectors_apart = gridDim.y * blockDim.x;
    if constexpr (Nhwc) {
        for (int32_t vector = first_vector; vector < vectors; vector += vectors_apart)
            for (int32_t row = first_row; row < rows; row += rows_apart)
                body(place_at(shape, row, vector * V), row, vector * V);
    } else {
        for (int32_t row = first_row; row < rows; row += rows_apart)
            for (int32_t vector = first_vector; vector < vectors; vector += vectors_apart)
                body(place_at(shape, row, vector * V), row, vector * V);
    }
}

// Caches mean and rstd for the thread's current channels: V channels (NHWC) or one (NCHW). Without the cache a thread
// would read more statistics than elements of the map.
template <int V, bool Nhwc>
struct StatisticsCache {
    static constexpr int kCount = Nhwc ? V : 1;
    int64_t at = -1;
    float mean[kCount] = {}, rstd[kCount] = {};

    // Reads the statistics at `place` unless the cache holds them. A null pointer stands for means of 0 or rstds of 1.
    __device__ __forceinline__ void move(const float* means, const float* rstds, int64_t place) {
        if (place == at) return;
        at = place;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            mean[i] = means != nullptr ? means[place + i] : 0.0f;
            rstd[i] = rstds != nullptr ? rstds[place + i] : 1.0f;
        }
    }
};

}  // namespace spade

#endif
