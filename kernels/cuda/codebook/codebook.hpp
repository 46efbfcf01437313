// Codebook: a matrix product whose rows are gathered, for several norms in one launch.
//
//   entries[u] = bias + sum over taps t of weight[t] actv[patches5[u][t]]
//
// Layout: actv [U3 + 1][128] with a last row of zeros, weight [2 C][taps * 128], entries [U5][2][C]. float16 and
// bfloat16: a block of 8 warps computes tiles of 128 rows x 256 columns, in steps of 64 deep; a stage of a step is 48
// KB of shared memory, rows of 128 bytes whose chunks of 16 are swizzled, so that eight rows below each other meet no
// bank twice. codebook_mma.hpp multiplies on any tensor cores since Ampere, codebook_wgmma.hpp on Hopper's,
// codebook_float.hpp float32.
//
// Bytes, E = sizeof(T): a tile reads 2304 E of actv per row and 2304 E of weight per column, from the second-level
// cache: 85 operations a byte. 2 E C written per row. Operations: 2 * 128 taps * 2 C per row.
//
// Fused: the gather into the load of the tile, so the gathered rows (nine times actv) are never written; bias and
// rounding into the end. Sums are float32. The loads run two steps ahead of the products, also across tiles. Per tap,
// the same product of actv itself with all taps' weights side by side, then the same sum of gathered rows, takes U3 /
// U5 of the multiplications and more memory traffic.
#ifndef SPADE_CUDA_CODEBOOK_HPP
#define SPADE_CUDA_CODEBOOK_HPP

#include <cuda_pipeline.h>

#include "cuda/device/grouped_launch.hpp"
#include "cuda/device/vectors.hpp"

namespace spade {

constexpr int kHidden = 128;  // channels of actv

template <typename T, typename Out>
struct Product {
    const T* actv;           // [..][128]
    const int32_t* patches;  // [rows][taps] rows of actv, or null: row i of out is row i of actv, taps is 1
    const T* weight;         // [columns][taps * 128]
    const float* bias;       // [columns], or null
    Out* out;                // [rows][columns]
    RowCount rows;
    int32_t extra;  // rows beyond those counted: the row of zeros of actv
    int32_t taps, columns;
    int32_t pairs;  // two neighbours of out are written at once
};

// Rows and columns of out that a block computes, and the depth of a step.
template <int Rows, int Columns, int Depth>
struct ProductTile {
    static constexpr int rows = Rows, columns = Columns, depth = Depth;
};

template <typename Tile>
__host__ __device__ inline int32_t product_tiles(int32_t rows, int32_t columns) {
    return (rows + Tile::rows - 1) / Tile::rows * ((columns + Tile::columns - 1) / Tile::columns);
}

// Rows of a tile run fastest, so that blocks at work share weights.
struct ProductPlace {
    int32_t row, column;
};

template <typename Tile>
__host__ __device__ inline ProductPlace product_place(int32_t tile, int32_t rows) {
    const int32_t down = (rows + Tile::rows - 1) / Tile::rows;
    return {tile % down * Tile::rows, tile / down * Tile::columns};
}

template <typename Tile, typename T, typename Out>
__device__ __forceinline__ JobLane count_product_tiles(const Jobs<Product<T, Out>>& jobs) {
    return count_tiles(
        jobs.count, [&](int job) { return rows_of(jobs.job[job].rows) + jobs.job[job].extra; },
        [&](int job, int32_t rows) { return product_tiles<Tile>(rows, jobs.job[job].columns); });
}

// Row of actv that a row of the product takes for a tap; rows beyond the last repeat it.
template <typename T, typename Out>
__device__ __forceinline__ int32_t gathered_row(const Product<T, Out>& of, int32_t row, int32_t rows, int32_t tap) {
    const int32_t inside = row < rows ? row : rows - 1;
    return of.patches == nullptr ? inside : of.patches[static_cast<int64_t>(inside) * of.taps + tap];
}

// ---- Stages of float16 and bfloat16 ----

using HalfTile = ProductTile<128, 256, 64>;
constexpr int kProductThreads = 256;
constexpr int kChunk = 8;                                  // elements of 16 bytes
constexpr int kRowChunks = HalfTile::depth / kChunk;       // of a row of a stage
constexpr int kRowsAtOnce = kProductThreads / kRowChunks;  // that the block copies
constexpr int kCopiesA = HalfTile::rows / kRowsAtOnce;     // of a thread and step
constexpr int kCopiesB = HalfTile::columns / kRowsAtOnce;
constexpr int kStepsOfTap = kHidden / HalfTile::depth;
constexpr int kStepsAhead = 2;

template <typename T>
struct alignas(1024) HalfStage {
    T a[HalfTile::rows * HalfTile::depth];
    T b[HalfTile::columns * HalfTile::depth];
};

// Where a chunk lies in a stage.
__host__ __device__ inline int stage_place(int row, int chunk) {
    return (row * kRowChunks + (chunk ^ (row % 8))) * kChunk;
}

// A thread's share of the loads, step after step and tile after tile.
template <typename T, typename Out>
struct Loader {
    int32_t tile, job, rows, row, column, step;
    int32_t source[kCopiesA];  // rows of actv that the next step gathers
};

template <typename T, typename Out>
__device__ __forceinline__ void gather_next(const Product<T, Out>& of, Loader<T, Out>& loader) {
    const int32_t row = loader.row + static_cast<int32_t>(threadIdx.x) / kRowChunks;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i)
        loader.source[i] = gathered_row(of, row + i * kRowsAtOnce, loader.rows, loader.step / kStepsOfTap);
}

// To the first step of loader.tile, if there is such a tile.
template <typename T, typename Out>
__device__ __forceinline__ void open_tile(const Jobs<Product<T, Out>>& jobs, const JobLane& own,
                                          Loader<T, Out>& loader) {
    if (loader.tile >= own.tiles) return;
    const JobTile at = find_tile(own, loader.tile);
    const ProductPlace place = product_place<HalfTile>(at.tile, at.rows);
    loader.job = at.job, loader.rows = at.rows, loader.row = place.row, loader.column = place.column, loader.step = 0;
    gather_next(jobs.job[at.job], loader);
}

// Starts the copies of the next step, and the look-up of the rows after it. Columns beyond the last keep what is in the
// stage: it enters sums that are not stored.
template <typename T, typename Out>
__device__ __forceinline__ void load_step(const Jobs<Product<T, Out>>& jobs, const JobLane& own, Loader<T, Out>& loader,
                                          HalfStage<T>& stage) {
    if (loader.tile < own.tiles) {
        const Product<T, Out>& of = jobs.job[loader.job];
        const int first = static_cast<int>(threadIdx.x) / kRowChunks,
                  chunk = static_cast<int>(threadIdx.x) % kRowChunks;
        const int32_t within = loader.step % kStepsOfTap * HalfTile::depth + chunk * kChunk;
#pragma unroll
        for (int i = 0; i < kCopiesA; ++i)
            __pipeline_memcpy_async(stage.a + stage_place(first + i * kRowsAtOnce, chunk),
                                    of.actv + static_cast<int64_t>(loader.source[i]) * kHidden + within, kWideBytes);
        const int64_t depth = static_cast<int64_t>(of.taps) * kHidden;
        const T* weight = of.weight + (loader.column + first) * depth + loader.step * HalfTile::depth + chunk * kChunk;
#pragma unroll
        for (int i = 0; i < kCopiesB; ++i)
            if (loader.column + first + i * kRowsAtOnce < of.columns)
                __pipeline_memcpy_async(stage.b + stage_place(first + i * kRowsAtOnce, chunk),
                                        weight + i * kRowsAtOnce * depth, kWideBytes);
        if (++loader.step == of.taps * kStepsOfTap) {
            loader.tile += static_cast<int32_t>(gridDim.x);
            open_tile(jobs, own, loader);
        } else if (loader.step % kStepsOfTap == 0) {
            gather_next(of, loader);
        }
    }
    __pipeline_commit();  // an empty one too: stages are counted
}

// The loader of a block's first tile, with the steps ahead under way.
template <typename T, typename Out>
__device__ __forceinline__ Loader<T, Out> begin_loads(const Jobs<Product<T, Out>>& jobs, const JobLane& own,
                                                      HalfStage<T>* stages) {
    Loader<T, Out> loader{};
    loader.tile = blockIdx.x;
    open_tile(jobs, own, loader);
    for (int i = 0; i < kStepsAhead; ++i) load_step(jobs, own, loader, stages[i]);
    return loader;
}

// ---- The end ----

// Two neighbours of out, with their bias.
template <typename T, typename Out>
__device__ __forceinline__ void store_pair(const Product<T, Out>& of, int32_t row, int32_t column, float bias,
                                           float next_bias, float first, float second) {
    const float pair[2] = {first + bias, second + next_bias};
    Out* to = of.out + static_cast<int64_t>(row) * of.columns + column;
    if (of.pairs != 0) {
        store<Out, 2>(to, pair);
    } else {
        to[0] = from_float<Out>(pair[0]);
        if (column + 1 < of.columns) to[1] = from_float<Out>(pair[1]);
    }
}

template <typename T, typename Out>
__device__ __forceinline__ float bias_at(const Product<T, Out>& of, int32_t column) {
    return of.bias != nullptr && column < of.columns ? of.bias[column] : 0.0f;
}

}  // namespace spade

#endif
