// The products of codebook.hpp in float32. A block of 256 threads computes a tile of 64 x 64, each thread 4 x 4.
#ifndef SPADE_CUDA_CODEBOOK_FLOAT_HPP
#define SPADE_CUDA_CODEBOOK_FLOAT_HPP

#include "cuda/codebook/codebook.hpp"

namespace spade {

using FloatTile = ProductTile<64, 64, 16>;

struct FloatShared {
    float a[FloatTile::depth][FloatTile::rows + 4];
    float b[FloatTile::depth][FloatTile::columns + 4];
};

__device__ __forceinline__ void product_float_tile(const Product<float, float>& of, const ProblemTile& tile,
                                                   FloatShared& shared) {
    const auto [row, column] = product_place<FloatTile>(tile.tile, tile.rows);
    const int thread = threadIdx.x, down = thread / 16 * 4, across = thread % 16 * 4;
    const int own_row = thread / 4, own_depth = thread % 4 * 4;  // what this thread loads
    const int32_t last = of.columns - 1, own_column = column + own_row < last ? column + own_row : last;
    const float* weight = of.weight + static_cast<int64_t>(own_column) * of.taps * kHidden + own_depth;
    float sums[4][4] = {};
    for (int32_t depth = 0; depth < of.taps * kHidden; depth += FloatTile::depth) {
        const int32_t from = gathered_row(of, row + own_row, tile.rows, depth / kHidden);
        const Vector<float, 4> a =
            load<float, 4>(of.actv + static_cast<int64_t>(from) * kHidden + depth % kHidden + own_depth);
        const Vector<float, 4> b = load<float, 4>(weight + depth);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            shared.a[own_depth + i][own_row] = a.values[i];
            shared.b[own_depth + i][own_row] = b.values[i];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < FloatTile::depth; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sums[i][j] = fmaf(shared.a[k][down + i], shared.b[k][across + j], sums[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int32_t at = column + across + j;
            if (row + down + i >= tile.rows || at >= of.columns) continue;
            of.out[static_cast<int64_t>(row + down + i) * of.columns + at] = sums[i][j] + bias_at(of, at);
        }
}

__device__ __forceinline__ void product_float(const GroupedLaunch<Product<float, float>>& grouped,
                                              FloatShared& shared) {
    const ProblemLane own = count_product_tiles<FloatTile>(grouped);
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const ProblemTile at = find_tile(own, tile);
        product_float_tile(grouped.problems[at.problem], at, shared);
    }
}

}  // namespace spade

#endif
