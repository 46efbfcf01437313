// Codebook: a matrix product whose rows are gathered, for several norms in one launch.
//
//   entries[u] = bias + sum over taps t of actv[patches5[u][t]] x weight[t]
//
// Layout: actv [U3 + 1][128] with a last row of zeros, weight [taps * 128][2 C], entries [U5][2][C]. float16 and
// bfloat16: a block of 8 warps computes tiles of 128 rows x 256 columns, each warp 64 x 64 of it, in steps of 64 deep;
// three stages of shared memory of 48 KB, whose chunks of 16 bytes are swizzled so that no 8 x 8 matrix meets a bank
// twice.
//
// Bytes, E = sizeof(T): a tile reads 2304 E of actv per row and 2304 E of weight per column, from the second-level
// cache: 85 operations a byte. 2 E C written per row. Operations: 2 * 128 taps * 2 C per row.
//
// Fused: the gather into the load of the tile, so the gathered rows (nine times actv) are never written; bias and
// rounding into the end. Products of float16 and bfloat16 go through tensor cores and are summed in float32. The loads
// run two steps ahead of the products, also across tiles. Per tap, the same product of actv itself with all taps'
// weights side by side, then the same sum of gathered rows, takes U3 / U5 of the multiplications and more memory
// traffic.
#ifndef SPADE_CUDA_CODEBOOK_HPP
#define SPADE_CUDA_CODEBOOK_HPP

#include <cuda_pipeline.h>

#include "jobs.hpp"
#include "tensor_core.hpp"
#include "vectors.hpp"

namespace spade {

constexpr int kHidden = 128;  // channels of actv

template <typename T, typename Out>
struct Product {
    const T* actv;           // [..][128]
    const int32_t* patches;  // [rows][taps] rows of actv, or null: row i of out is row i of actv, taps is 1
    const T* weight;         // [taps * 128][columns]
    const float* bias;       // [columns], or null
    Out* out;                // [rows][columns]
    RowCount rows;
    int32_t extra;  // rows beyond those counted: the row of zeros of actv
    int32_t taps, columns;
    int32_t wide;  // rows of weight and of out begin at multiples of 16 bytes
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

// Row of actv that a row of the product takes for a tap; rows beyond the last repeat it.
template <typename T, typename Out>
__device__ __forceinline__ int32_t gathered_row(const Product<T, Out>& of, int32_t row, int32_t rows, int32_t tap) {
    const int32_t inside = row < rows ? row : rows - 1;
    return of.patches == nullptr ? inside : of.patches[static_cast<int64_t>(inside) * of.taps + tap];
}

// ---- Tensor cores ----

using HalfTile = ProductTile<128, 256, 64>;
constexpr int kStages = 3;
constexpr int kProductThreads = 256;
constexpr int kChunk = 8;                                              // elements of 16 bytes
constexpr int kChunksA = HalfTile::depth / kChunk;                     // of a row of a stage of actv
constexpr int kChunksB = HalfTile::columns / kChunk;                   // and of weight
constexpr int kCopiesA = HalfTile::rows * kChunksA / kProductThreads;  // of a thread and step
constexpr int kCopiesB = HalfTile::depth * kChunksB / kProductThreads;
constexpr int kStepsOfTap = kHidden / HalfTile::depth;

template <typename T>
struct alignas(128) HalfStage {
    T a[HalfTile::rows * HalfTile::depth];
    T b[HalfTile::depth * HalfTile::columns];
};

template <typename T>
constexpr int kProductShared = kStages * static_cast<int>(sizeof(HalfStage<T>));

// Where a chunk lies in a stage. Eight rows below each other are read at once: they lie in eight different banks.
__host__ __device__ inline int place_a(int row, int chunk) { return (row * kChunksA + (chunk ^ (row % 8))) * kChunk; }
__host__ __device__ inline int place_b(int depth, int chunk) {
    return (depth * kChunksB + (chunk ^ (depth % 8))) * kChunk;
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

// A thread's share of the loads, step after step and tile after tile.
template <typename T, typename Out>
struct Loader {
    int32_t tile, job, rows, row, column, step;
    int32_t source[kCopiesA];  // rows of actv that the next step gathers
};

template <typename T, typename Out>
__device__ __forceinline__ void gather_next(const Product<T, Out>& of, Loader<T, Out>& loader) {
    const int32_t row = loader.row + static_cast<int32_t>(threadIdx.x) / kChunksA;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i)
        loader.source[i] =
            gathered_row(of, row + i * (kProductThreads / kChunksA), loader.rows, loader.step / kStepsOfTap);
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

template <typename T, typename Out>
__device__ __forceinline__ void load_weight(const Product<T, Out>& of, const Loader<T, Out>& loader, T* stage) {
    constexpr int kApart = kProductThreads / kChunksB;
    const int depth = static_cast<int>(threadIdx.x) / kChunksB, chunk = static_cast<int>(threadIdx.x) % kChunksB;
    const int32_t column = loader.column + chunk * kChunk;
    const T* from = of.weight + (static_cast<int64_t>(loader.step) * HalfTile::depth + depth) * of.columns + column;
    if (of.wide != 0) {
        if (column >= of.columns) return;
#pragma unroll
        for (int i = 0; i < kCopiesB; ++i)
            __pipeline_memcpy_async(stage + place_b(depth + i * kApart, chunk),
                                    from + static_cast<int64_t>(i) * kApart * of.columns, kWideBytes);
        return;
    }
    for (int i = 0; i < kCopiesB; ++i) {
        T* to = stage + place_b(depth + i * kApart, chunk);
        for (int j = 0; j < kChunk; ++j)
            to[j] =
                column + j < of.columns ? from[static_cast<int64_t>(i) * kApart * of.columns + j] : from_float<T>(0.0f);
    }
}

// Starts the copies of the next step, and the look-up of the rows after it. Columns beyond the last keep what is in
// the stage: they change sums that are not stored.
template <typename T, typename Out>
__device__ __forceinline__ void load_step(const Jobs<Product<T, Out>>& jobs, const JobLane& own, Loader<T, Out>& loader,
                                          HalfStage<T>& stage) {
    if (loader.tile < own.tiles) {
        const Product<T, Out>& of = jobs.job[loader.job];
        const int chunk = static_cast<int>(threadIdx.x) % kChunksA;
        const int32_t within = loader.step % kStepsOfTap * HalfTile::depth + chunk * kChunk;
#pragma unroll
        for (int i = 0; i < kCopiesA; ++i) {
            const int row = static_cast<int>(threadIdx.x) / kChunksA + i * (kProductThreads / kChunksA);
            const T* from = of.actv + static_cast<int64_t>(loader.source[i]) * kHidden + within;
            __pipeline_memcpy_async(stage.a + place_a(row, chunk), from, kWideBytes);
        }
        load_weight(of, loader, stage.b);
        if (++loader.step == of.taps * kStepsOfTap) {
            loader.tile += static_cast<int32_t>(gridDim.x);
            open_tile(jobs, own, loader);
        } else if (loader.step % kStepsOfTap == 0) {
            gather_next(of, loader);
        }
    }
    __pipeline_commit();  // an empty one too: stages are counted
}

// sums += a x b of one step: of a warp 64 rows from `down`, 64 columns from `across`, as 4 x 8 products of 16 x 8.
template <typename T>
__device__ __forceinline__ void multiply_step(const HalfStage<T>& stage, int down, int across, float (&sums)[4][8][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, line = lane % 16, half = lane / 16;
#pragma unroll
    for (int k = 0; k < HalfTile::depth; k += 16) {
        uint32_t a[4][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) load_matrices(a[i], stage.a + place_a(down + i * 16 + line, k / kChunk + half));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            uint32_t b[4];
            load_matrices_transposed(b, stage.b + place_b(k + line, across / kChunk + j * 2 + half));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                multiply_add<T>(sums[i][2 * j], a[i], b[0], b[1]);
                multiply_add<T>(sums[i][2 * j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// A lane holds pairs of neighbours, in rows eight apart; `row` and `column` are the warp's first.
template <typename T, typename Out>
__device__ __forceinline__ void store_tile(const Product<T, Out>& of, const float (&sums)[4][8][4], int32_t row,
                                           int32_t column, int32_t rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const int32_t at = column + j * 8 + lane % 4 * 2;
        if (at >= of.columns) continue;
        const bool both = at + 1 < of.columns;
        const float first = of.bias != nullptr ? of.bias[at] : 0.0f;
        const float second = of.bias != nullptr && both ? of.bias[at + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int32_t down = row + i / 2 * 16 + i % 2 * 8 + lane / 4;
            if (down >= rows) continue;
            const float pair[2] = {sums[i / 2][j][i % 2 * 2] + first, sums[i / 2][j][i % 2 * 2 + 1] + second};
            Out* to = of.out + static_cast<int64_t>(down) * of.columns + at;
            if (of.wide != 0) {
                store<Out, 2>(to, pair);
            } else {
                to[0] = from_float<Out>(pair[0]);
                if (both) to[1] = from_float<Out>(pair[1]);
            }
        }
    }
}

template <typename Tile, typename T, typename Out>
__device__ __forceinline__ JobLane count_product_tiles(const Jobs<Product<T, Out>>& jobs) {
    return count_tiles(
        jobs.count, [&](int job) { return rows_of(jobs.job[job].rows) + jobs.job[job].extra; },
        [&](int job, int32_t rows) { return product_tiles<Tile>(rows, jobs.job[job].columns); });
}

template <typename T, typename Out>
__device__ __forceinline__ void product_half(const Jobs<Product<T, Out>>& jobs, HalfStage<T>* stages) {
    const JobLane own = count_product_tiles<HalfTile>(jobs);
    const int warp = static_cast<int>(threadIdx.x) / 32, down = warp / 4 * 64, across = warp % 4 * 64;
    Loader<T, Out> loader{};
    loader.tile = blockIdx.x;
    open_tile(jobs, own, loader);
    for (int i = 0; i + 1 < kStages; ++i) load_step(jobs, own, loader, stages[i]);
    int now = 0, ahead = kStages - 1;
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const JobTile at = find_tile(own, tile);
        const Product<T, Out>& of = jobs.job[at.job];
        float sums[4][8][4] = {};
        for (int32_t step = 0; step < of.taps * kStepsOfTap; ++step) {
            __pipeline_wait_prior(kStages - 2);
            __syncthreads();  // this step has arrived, and the step before is used up
            load_step(jobs, own, loader, stages[ahead]);
            multiply_step(stages[now], down, across, sums);
            now = now + 1 == kStages ? 0 : now + 1;
            ahead = ahead + 1 == kStages ? 0 : ahead + 1;
        }
        const ProductPlace place = product_place<HalfTile>(at.tile, at.rows);
        store_tile(of, sums, place.row + down, place.column + across, at.rows);
    }
    __pipeline_wait_prior(0);
}

// ---- float32: 64 x 64 by 256 threads, each 4 x 4 ----

using FloatTile = ProductTile<64, 64, 16>;

struct FloatShared {
    float a[FloatTile::depth][FloatTile::rows + 4];
    float b[FloatTile::depth][FloatTile::columns];
};

__device__ __forceinline__ void product_float_tile(const Product<float, float>& of, const JobTile& tile,
                                                   FloatShared& shared) {
    const auto [row, column] = product_place<FloatTile>(tile.tile, tile.rows);
    const int32_t rows = tile.rows;
    const int thread = threadIdx.x, down = thread / 16 * 4, across = thread % 16 * 4;
    float sums[4][4] = {};
    for (int32_t depth = 0; depth < of.taps * kHidden; depth += FloatTile::depth) {
        const int a_row = thread / 4, a_depth = thread % 4 * 4;
        const int64_t from = static_cast<int64_t>(gathered_row(of, row + a_row, rows, depth / kHidden)) * kHidden +
                             depth % kHidden + a_depth;
        const Vector<float, 4> a = load<float, 4>(of.actv + from);
        for (int i = 0; i < 4; ++i) {
            shared.a[a_depth + i][a_row] = a.values[i];
            const int b_depth = thread / 16, b_column = thread % 16 * 4 + i;
            const int64_t at = static_cast<int64_t>(depth + b_depth) * of.columns + column + b_column;
            shared.b[b_depth][b_column] = column + b_column < of.columns ? of.weight[at] : 0;
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
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            const int32_t at = column + across + j;
            if (row + down + i >= rows || at >= of.columns) continue;
            of.out[static_cast<int64_t>(row + down + i) * of.columns + at] =
                sums[i][j] + (of.bias != nullptr ? of.bias[at] : 0.0f);
        }
}

__device__ __forceinline__ void product_float(const Jobs<Product<float, float>>& jobs, FloatShared& shared) {
    const JobLane own = count_product_tiles<FloatTile>(jobs);
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const JobTile at = find_tile(own, tile);
        product_float_tile(jobs.job[at.job], at, shared);
    }
}

}  // namespace spade

#endif
