// The products of codebook.hpp on Hopper. A warpgroup computes 64 x 256 of a tile; a block has four stages. The
// products of a step still run while the products of the next step are issued, so that the tensor cores never wait at a
// barrier.
#ifndef SPADE_CUDA_CODEBOOK_WGMMA_HPP
#define SPADE_CUDA_CODEBOOK_WGMMA_HPP

#include "cuda/codebook/codebook.hpp"
#include "cuda/device/warpgroup.hpp"

namespace spade {

// A load overwrites the stage of the step before the previous one: products of the previous step may still run.
constexpr int kWgmmaAhead = 2, kWgmmaStages = kWgmmaAhead + 2;

#ifdef SPADE_HAS_WGMMA

template <typename T>
__device__ __forceinline__ void multiply_step(const HalfStage<T>& stage, int down, float (&sums)[32][4]) {
    const uint64_t a = matrix_descriptor(stage.a + down * HalfTile::depth), b = matrix_descriptor(stage.b);
    begin_products();
#pragma unroll
    for (int k = 0; k < HalfTile::depth; k += 16) {
        const uint64_t along = k * sizeof(T) / 16;  // a descriptor counts in 16 bytes
        multiply_group<T>(sums, a + along, b + along);
    }
    commit_products();
}

// Stores a warp's sums; `row` and `column` are the first of the warp.
template <typename T, typename Out>
__device__ __forceinline__ void store_tile(const Product<T, Out>& of, const float (&sums)[32][4], int32_t row,
                                           int32_t column, int32_t rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
        const int32_t at = column + j * 8 + lane % 4 * 2;
        if (at >= of.columns) continue;
        const float bias = bias_at(of, at), next = bias_at(of, at + 1);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int32_t down = row + i * 8 + lane / 4;
            if (down < rows) store_pair(of, down, at, bias, next, sums[j][2 * i], sums[j][2 * i + 1]);
        }
    }
}

template <typename T, typename Out>
__device__ __forceinline__ void product_wgmma(const GroupedLaunch<Product<T, Out>>& grouped, HalfStage<T>* stages) {
    const ProblemLane own = count_product_tiles<HalfTile>(grouped);
    const int warp = static_cast<int>(threadIdx.x) / 32, group = warp / 4;
    Loader<T, Out> loader = begin_loads<kWgmmaAhead>(grouped, own, stages);
    int now = 0, ahead = kWgmmaAhead;
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const ProblemTile at = find_tile(own, tile);
        const Product<T, Out>& of = grouped.problems[at.problem];
        float sums[32][4] = {};
        for (int32_t step = 0; step < of.taps * kStepsOfTap; ++step) {
            __pipeline_wait_prior(kWgmmaAhead - 1);
            publish_shared();
            __syncthreads();  // all threads have this step's stage; the stage that the next load overwrites is free
            multiply_step(stages[now], group * 64, sums);
            load_step(grouped, own, loader, stages[ahead]);
            wait_for_products<1>();
            now = now + 1 == kWgmmaStages ? 0 : now + 1;
            ahead = ahead + 1 == kWgmmaStages ? 0 : ahead + 1;
        }
        wait_for_products<0>();
        take_sums(sums);
        const ProductPlace place = product_place<HalfTile>(at.tile, at.rows);
        store_tile(of, sums, place.row + warp * 16, place.column, at.rows);
    }
    __pipeline_wait_prior(0);
}

#endif

}  // namespace spade

#endif
