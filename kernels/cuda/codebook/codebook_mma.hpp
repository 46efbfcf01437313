// The products of codebook.hpp with mma.m16n8k16. A warp computes 64 x 64 of a tile. A
// block has three stages, and loads run two steps ahead; or two stages, and one step, where a block may have less than
// 144 KB of shared memory.
#ifndef SPADE_CUDA_CODEBOOK_MMA_HPP
#define SPADE_CUDA_CODEBOOK_MMA_HPP

#include "cuda/codebook/codebook.hpp"
#include "cuda/device/tensor_core.hpp"

namespace spade {

constexpr int kMmaStages = 3, kMmaFewStages = 2;

// sums += a x b for one step and one warp: 64 rows from `down` and 64 columns from `across`, as 4 x 8 products of 16 x
// 8.
template <typename T>
__device__ __forceinline__ void multiply_step(const HalfStage<T>& stage, int down, int across, float (&sums)[4][8][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    // One load takes four 8 x 8 matrices: of a, 16 rows x depth 16, rows first; of b, 16 columns x depth 16, depth
    // first.
    const int row_a = down + lane % 16, half_a = lane / 16;
    const int row_b = across + lane / 16 * 8 + lane % 8, half_b = lane / 8 % 2;
#pragma unroll
    for (int k = 0; k < HalfTile::depth; k += 16) {
        uint32_t a[4][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) load_matrices(a[i], stage.a + stage_place(row_a + i * 16, k / kChunk + half_a));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            uint32_t b[4];
            load_matrices(b, stage.b + stage_place(row_b + j * 16, k / kChunk + half_b));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                multiply_add<T>(sums[i][2 * j], a[i], b[0], b[1]);
                multiply_add<T>(sums[i][2 * j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// Stores a warp's sums; `row` and `column` are the first of the warp.
template <typename T, typename Out>
__device__ __forceinline__ void store_tile(const Product<T, Out>& of, const float (&sums)[4][8][4], int32_t row,
                                           int32_t column, int32_t rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const int32_t at = column + j * 8 + lane % 4 * 2;
        if (at >= of.columns) continue;
        const float bias = bias_at(of, at), next = bias_at(of, at + 1);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int32_t down = row + i / 2 * 16 + i % 2 * 8 + lane / 4;
            if (down < rows)
                store_pair(of, down, at, bias, next, sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]);
        }
    }
}

// A load overwrites the stage of the previous step; the barrier at the start of a step makes that safe.
template <int Stages, typename T, typename Out>
__device__ __forceinline__ void product_mma(const GroupedLaunch<Product<T, Out>>& grouped, HalfStage<T>* stages) {
    constexpr int kAhead = Stages - 1;
    const ProblemLane own = count_product_tiles<HalfTile>(grouped);
    const int warp = static_cast<int>(threadIdx.x) / 32, down = warp / 4 * 64, across = warp % 4 * 64;
    Loader<T, Out> loader = begin_loads<kAhead>(grouped, own, stages);
    int now = 0, ahead = kAhead;
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const ProblemTile at = find_tile(own, tile);
        const Product<T, Out>& of = grouped.problems[at.problem];
        float sums[4][8][4] = {};
        for (int32_t step = 0; step < of.taps * kStepsOfTap; ++step) {
            __pipeline_wait_prior(kAhead - 1);
            __syncthreads();  // all threads have this step's stage and have read the previous step's stage
            load_step(grouped, own, loader, stages[ahead]);
            multiply_step(stages[now], down, across, sums);
            now = now + 1 == Stages ? 0 : now + 1;
            ahead = ahead + 1 == Stages ? 0 : ahead + 1;
        }
        const ProductPlace place = product_place<HalfTile>(at.tile, at.rows);
        store_tile(of, sums, place.row + down, place.column + across, at.rows);
    }
    __pipeline_wait_prior(0);
}

}  // namespace spade

#endif
