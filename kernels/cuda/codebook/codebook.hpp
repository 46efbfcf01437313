// The codebook: a matrix product whose rows are gathered, for several norms in one launch.
//
//   entries[u] = bias + sum over taps t of weight[t] actv[patches5[u][t]]
//
// Layout: actv [U3 + 1][128] with a last row of zeros, weight [2 C][taps * 128], entries [U5][2][C]. For float16 and
// bfloat16 a block of 8 warps computes tiles of 128 rows x 256 columns in steps of depth 64. One step reads one stage:
// 48 KB of shared memory in rows of 128 bytes. The 16-byte chunks of a row are swizzled, so that eight consecutive rows
// use different banks. codebook_mma.hpp multiplies on the tensor cores of Ampere and later GPUs, codebook_wgmma.hpp on
// the tensor cores of Hopper, and codebook_float.hpp in float32.
//
// Bytes, E = sizeof(T): a tile of 9 taps reads 2304 E of actv per row and 2304 E of weight per column, from the L2
// cache: 85 operations per byte. It writes 2 E C per row. Operations: 2 * 128 taps * 2 C per row.
//
// Fused: the load of a tile gathers the rows, so the gathered rows (nine times actv) never reach memory; the store of a
// tile adds the bias and rounds. Sums are float32. Loads run one or two steps ahead of the products, as shared memory
// allows, also across tiles. The
// per-tap form multiplies each row of actv once with the weights of all taps and then sums gathered rows of the
// products: U3 / U5 of the multiplications, and more memory traffic.
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
    int32_t extra;  // rows to compute beyond `rows`: 1 for the last row of actv, which is zero
    int32_t taps, columns;
    int32_t pairs;  // 1: one access may write two neighbours of out
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

// The first row and column of a tile. Neighbouring tiles differ in their rows, so that concurrent blocks share weights.
struct ProductPlace {
    int32_t row, column;
};

template <typename Tile>
__host__ __device__ inline ProductPlace product_place(int32_t tile, int32_t rows) {
    const int32_t down = (rows + Tile::rows - 1) / Tile::rows;
    return {tile % down * Tile::rows, tile / down * Tile::columns};
}

template <typename Tile, typename T, typename Out>
__device__ __forceinline__ ProblemLane count_product_tiles(const GroupedLaunch<Product<T, Out>>& grouped) {
    return count_tiles(
        grouped.count,
        [&](int problem) { return rows_of(grouped.problems[problem].rows) + grouped.problems[problem].extra; },
        [&](int problem, int32_t rows) { return product_tiles<Tile>(rows, grouped.problems[problem].columns); });
}

// The row of actv that a row of the product reads for a tap. Rows beyond the last read what the last row reads.
template <typename T, typename Out>
__device__ __forceinline__ int32_t gathered_row(const Product<T, Out>& of, int32_t row, int32_t rows, int32_t tap) {
    const int32_t inside = row < rows ? row : rows - 1;
    return of.patches == nullptr ? inside : of.patches[static_cast<int64_t>(inside) * of.taps + tap];
}

// ---- Stages of float16 and bfloat16 ----

using HalfTile = ProductTile<128, 256, 64>;
constexpr int kProductThreads = 256;
constexpr int kChunk = 8;                                  // elements of 16 bytes
constexpr int kRowChunks = HalfTile::depth / kChunk;       // chunks in one row of a stage
constexpr int kRowsAtOnce = kProductThreads / kRowChunks;  // rows that the whole block copies at once
constexpr int kCopiesA = HalfTile::rows / kRowsAtOnce;     // copies of one thread in one step
constexpr int kCopiesB = HalfTile::columns / kRowsAtOnce;
constexpr int kStepsOfTap = kHidden / HalfTile::depth;

template <typename T>
struct alignas(1024) HalfStage {
    T a[HalfTile::rows * HalfTile::depth];
    T b[HalfTile::columns * HalfTile::depth];
};

// The place of a chunk in a stage, in elements.
__host__ __device__ inline int stage_place(int row, int chunk) {
    return (row * kRowChunks + (chunk ^ (row % 8))) * kChunk;
}

// The state of a thread's loads: the tile and the step that the thread loads next.
template <typename T, typename Out>
struct Loader {
    int32_t tile, problem, rows, row, column, step;
    int32_t source[kCopiesA];  // rows of actv for the next step
};

template <typename T, typename Out>
__device__ __forceinline__ void gather_next(const Product<T, Out>& of, Loader<T, Out>& loader) {
    const int32_t row = loader.row + static_cast<int32_t>(threadIdx.x) / kRowChunks;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i)
        loader.source[i] = gathered_row(of, row + i * kRowsAtOnce, loader.rows, loader.step / kStepsOfTap);
}

// Moves the loader to the first step of loader.tile, if that tile exists.
template <typename T, typename Out>
__device__ __forceinline__ void open_tile(const GroupedLaunch<Product<T, Out>>& grouped, const ProblemLane& own,
                                          Loader<T, Out>& loader) {
    if (loader.tile >= own.tiles) return;
    const ProblemTile at = find_tile(own, loader.tile);
    const ProductPlace place = product_place<HalfTile>(at.tile, at.rows);
    loader.problem = at.problem, loader.rows = at.rows, loader.row = place.row, loader.column = place.column,
    loader.step = 0;
    gather_next(grouped.problems[at.problem], loader);
}

// Starts the copies of the next step, and reads which rows the step after it needs. Columns beyond the last are not
// copied: old values of the stage enter their sums, which are never stored.
template <typename T, typename Out>
__device__ __forceinline__ void load_step(const GroupedLaunch<Product<T, Out>>& grouped, const ProblemLane& own,
                                          Loader<T, Out>& loader, HalfStage<T>& stage) {
    if (loader.tile < own.tiles) {
        const Product<T, Out>& of = grouped.problems[loader.problem];
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
            open_tile(grouped, own, loader);
        } else if (loader.step % kStepsOfTap == 0) {
            gather_next(of, loader);
        }
    }
    __pipeline_commit();  // also without copies: the waits count one group for each stage
}

// Returns a loader for the block's first tile after starting the loads of the first Ahead steps.
template <int Ahead, typename T, typename Out>
__device__ __forceinline__ Loader<T, Out> begin_loads(const GroupedLaunch<Product<T, Out>>& grouped,
                                                      const ProblemLane& own, HalfStage<T>* stages) {
    Loader<T, Out> loader{};
    loader.tile = blockIdx.x;
    open_tile(grouped, own, loader);
    for (int i = 0; i < Ahead; ++i) load_step(grouped, own, loader, stages[i]);
    return loader;
}

// ---- Stores ----

// Stores two neighbours of out, each with its bias.
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
