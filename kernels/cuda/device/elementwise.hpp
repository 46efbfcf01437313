// A map as rows: what every elementwise kernel goes through.
#ifndef SPADE_CUDA_ROWS_HPP
#define SPADE_CUDA_ROWS_HPP

#include "cuda/device/vectors.hpp"

namespace spade {

// Rows are pixels of C channels (NHWC) or planes of pixels (NCHW).
struct RowShape {
    int32_t n, pixels, channels;
    int64_t modulation_stride;  // of gamma and beta: elements between pixels (NHWC) or images (NCHW)
    int64_t statistics_stride;
    bool nhwc;
};

__host__ __device__ inline int32_t row_count(const RowShape& shape) {
    return shape.n * (shape.nhwc ? shape.pixels : shape.channels);
}

__host__ __device__ inline int32_t row_length(const RowShape& shape) {
    return shape.nhwc ? shape.channels : shape.pixels;
}

struct RowPlace {
    int64_t map, modulation, statistics;  // element offsets; statistics: of the first lane
};

__host__ __device__ inline RowPlace place_at(const RowShape& shape, int32_t row, int32_t element) {
    const int64_t map = static_cast<int64_t>(row) * row_length(shape) + element;
    if (shape.nhwc)
        return {map, row * shape.modulation_stride + element, row / shape.pixels * shape.statistics_stride + element};
    const int32_t image = row / shape.channels, channel = row - image * shape.channels;
    return {map, image * shape.modulation_stride + static_cast<int64_t>(channel) * shape.pixels + element,
            image * shape.statistics_stride + channel};
}

// Calls body(place, row, element) for every vector of V elements that is this thread's: of NHWC maps down the pixels,
// whose statistics are the same for as long as the image is.
template <int V, bool Nhwc, typename Body>
__device__ __forceinline__ void for_each_vector(const RowShape& shape, const Body& body) {
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

// What a thread knows of the statistics where it is: a vector of channels (NHWC), or one (NCHW). Reading them again for
// every vector of the map would be more accesses than the map itself.
template <int V, bool Nhwc>
struct Statistics {
    static constexpr int kCount = Nhwc ? V : 1;
    int64_t at = -1;
    float mean[kCount] = {}, rstd[kCount] = {};

    // With null pointers: 0 and 1.
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
