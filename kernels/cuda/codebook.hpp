// Embed: a conv on a one-hot map as a sum of gathered rows. Codebook: a matrix product whose rows are gathered.
//
//   actv[u] = ReLU(bias + sum over taps t of table[t][patches3[u][t]])
//   entries[u] = bias + sum over taps t of actv[patches5[u][t]] x weight[t]
//
// Layout: table [taps][symbols + 1][D], actv [U3 + 1][128] with a last row of zeros, weight [taps * 128][2 C],
// entries [U5][2][C].
//
// Bytes, E = sizeof(T): embed reads 4 taps + E taps D (from L2) and writes E D per row. The codebook's tiles read
// 2304 E of actv per row and tile of 128 columns, and 2304 E 128 of weight per tile, from L2; they write 2 E C per row.
// Operations: embed taps D additions; codebook 2 * 128 taps * 2 C per row.
//
// Fused: the gather into the load of the tile, so the gathered rows (nine times actv) are never written; bias and
// rounding into the end. Products of float16 and bfloat16 go through tensor cores, 16 x 16 x 16, summed in float32.
// Per tap, the same product of actv itself with all taps' weights side by side, then the same sum of gathered rows,
// takes U3 / U5 of the multiplications and more memory traffic.
#ifndef SPADE_CUDA_CODEBOOK_HPP
#define SPADE_CUDA_CODEBOOK_HPP

#include <cuda_pipeline.h>
#include <mma.h>

#include "vectors.hpp"

namespace spade {

constexpr int kHidden = 128;  // channels of actv

// A number of rows that the host knows, or the difference of two numbers on the device, so that nothing waits.
struct RowCount {
    int32_t most;  // rows that there is room for
    const int32_t *first, *last;
};

__host__ __device__ inline int32_t rows_of(const RowCount& count) {
    if (count.first == nullptr) return count.most;
    const int32_t rows = *count.last - *count.first;
    return rows < count.most ? rows : count.most;
}

// ---- A sum of gathered rows ----

template <typename Table, typename T>
struct Gather {
    const Table* table;  // row r of tap t at t * tap_stride + r * row_stride
    const float* bias;   // [depth]
    const int32_t* patches;
    T* out;  // [rows][depth]
    int64_t tap_stride, row_stride;
    int32_t taps, depth, relu, zero_row;
    RowCount rows;
};

template <typename Table, typename T, int V>
__device__ __forceinline__ void gather_sum(const Gather<Table, T>& of) {
    const int32_t rows = rows_of(of.rows), vectors = of.depth / V;
    for (int32_t row = blockIdx.x * blockDim.y + threadIdx.y; row < rows + of.zero_row; row += gridDim.x * blockDim.y) {
        for (int32_t vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
            const int32_t channel = vector * V;
            float sum[V] = {};
            if (row < rows) {
#pragma unroll
                for (int i = 0; i < V; ++i) sum[i] = of.bias[channel + i];
                for (int32_t tap = 0; tap < of.taps; ++tap) {
                    const int64_t from = of.patches[static_cast<int64_t>(row) * of.taps + tap];
                    const Vector<Table, V> values =
                        load<Table, V>(of.table + tap * of.tap_stride + from * of.row_stride + channel);
#pragma unroll
                    for (int i = 0; i < V; ++i) sum[i] += to_float(values.values[i]);
                }
                for (int i = 0; of.relu != 0 && i < V; ++i) sum[i] = sum[i] > 0 ? sum[i] : 0;
            }
            store<T, V>(of.out + static_cast<int64_t>(row) * of.depth + channel, sum);
        }
    }
}

// ---- A product with gathered rows ----

template <typename T, typename Out>
struct Product {
    const T* actv;           // [..][128]
    const int32_t* patches;  // [rows][taps] rows of actv, or null: row i of out is row i of actv, taps is 1
    const T* weight;         // [taps * 128][columns]
    const float* bias;       // [columns], or null
    Out* out;                // [rows][columns]
    int32_t taps, columns;
    RowCount rows;
    int32_t extra;  // rows beyond those counted: the row of zeros of actv
};

// Rows and columns of out that a block computes, and the depth of a step.
template <int Rows, int Columns, int Depth>
struct Tile2 {
    static constexpr int rows = Rows, columns = Columns, depth = Depth;
};

// Row of actv that a row of the product takes for a tap; rows beyond the last repeat it.
template <typename T, typename Out>
__device__ __forceinline__ int64_t gathered_row(const Product<T, Out>& of, int32_t row, int32_t rows, int32_t tap) {
    const int32_t inside = row < rows ? row : rows - 1;
    return of.patches == nullptr ? inside : of.patches[static_cast<int64_t>(inside) * of.taps + tap];
}

// ---- Tensor cores: 128 x 128 by 8 warps, each 32 x 64 as 2 x 4 products of 16 x 16 ----

constexpr int kWmma = 16;
using HalfTile = Tile2<128, 128, 32>;
// Rows of shared memory are 16 bytes longer than they need be: 16 rows then lie in different banks.
constexpr int kPitchA = HalfTile::depth + 8, kPitchB = HalfTile::columns + 8, kPitchOut = kWmma + 4;

template <typename T>
struct alignas(32) HalfStage {
    T a[HalfTile::rows * kPitchA];
    T b[HalfTile::depth * kPitchB];
};

template <typename T>
union alignas(32) HalfShared {
    HalfStage<T> stages[2];
    float out[8][kWmma * kPitchOut];
};

// Starts the copies of step `step`: 512 accesses of 16 bytes for either matrix, two a thread.
template <typename T, typename Out>
__device__ __forceinline__ void load_stage(const Product<T, Out>& of, HalfStage<T>& stage, int32_t row, int32_t column,
                                           int32_t rows, int32_t step, bool aligned) {
    constexpr int V = kWide<T>;
    const int32_t depth = step * HalfTile::depth, tap = depth / kHidden, within = depth % kHidden;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int access = static_cast<int>(threadIdx.x) + i * 256;
        const int a_row = access / 4, a_column = access % 4 * V;
        const T* from = of.actv + gathered_row(of, row + a_row, rows, tap) * kHidden + within + a_column;
        __pipeline_memcpy_async(stage.a + a_row * kPitchA + a_column, from, kWideBytes);
        const int b_row = access / 16, b_column = access % 16 * V;
        T* to = stage.b + b_row * kPitchB + b_column;
        const T* weight = of.weight + static_cast<int64_t>(depth + b_row) * of.columns + column + b_column;
        if (aligned && column + b_column + V <= of.columns) {
            __pipeline_memcpy_async(to, weight, kWideBytes);
        } else {
            for (int j = 0; j < V; ++j) to[j] = column + b_column + j < of.columns ? weight[j] : from_float<T>(0.0f);
        }
    }
    __pipeline_commit();
}

template <typename T>
using Accumulator = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kWmma, kWmma, kWmma, float>;

template <typename T>
__device__ __forceinline__ void multiply_stage(const HalfStage<T>& stage, int down, int across,
                                               Accumulator<T> (&sums)[2][4]) {
    using namespace nvcuda;
#pragma unroll
    for (int k = 0; k < HalfTile::depth; k += kWmma) {
        wmma::fragment<wmma::matrix_a, kWmma, kWmma, kWmma, T, wmma::row_major> a[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) wmma::load_matrix_sync(a[i], stage.a + (down + i * kWmma) * kPitchA + k, kPitchA);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            wmma::fragment<wmma::matrix_b, kWmma, kWmma, kWmma, T, wmma::row_major> b;
            wmma::load_matrix_sync(b, stage.b + k * kPitchB + across + j * kWmma, kPitchB);
#pragma unroll
            for (int i = 0; i < 2; ++i) wmma::mma_sync(sums[i][j], a[i], b, sums[i][j]);
        }
    }
}

// Through shared memory, since how a fragment lies in registers is not ours to know; a lane takes 8 columns of a row.
template <typename T, typename Out>
__device__ __forceinline__ void store_tile(const Product<T, Out>& of, const Accumulator<T>& sums, float* own,
                                           int32_t row, int32_t column, int32_t rows, bool aligned) {
    const int lane = threadIdx.x % 32, down = lane / 2, across = lane % 2 * 8;
    nvcuda::wmma::store_matrix_sync(own, sums, kPitchOut, nvcuda::wmma::mem_row_major);
    __syncwarp();
    const int32_t first = column + across;
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        values[i] = own[down * kPitchOut + across + i];
        if (of.bias != nullptr && first + i < of.columns) values[i] += of.bias[first + i];
    }
    __syncwarp();
    if (row + down >= rows) return;
    Out* to = of.out + static_cast<int64_t>(row + down) * of.columns + first;
    if (sizeof(Out) == 2 && aligned && first + 8 <= of.columns) {
        store<Out, 8>(to, values);
        return;
    }
    for (int i = 0; i < 8 && first + i < of.columns; ++i) to[i] = from_float<Out>(values[i]);
}

template <typename T, typename Out>
__device__ __forceinline__ void product_half(const Product<T, Out>& of, HalfShared<T>& shared, bool aligned) {
    const int32_t rows = rows_of(of.rows) + of.extra, steps = of.taps * kHidden / HalfTile::depth;
    const int32_t row = blockIdx.x * HalfTile::rows, column = blockIdx.y * HalfTile::columns;
    if (row >= rows) return;  // all of the block
    const int warp = threadIdx.x / 32, down = warp / 2 * 32, across = warp % 2 * 64;
    Accumulator<T> sums[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) nvcuda::wmma::fill_fragment(sums[i][j], 0.0f);
    load_stage(of, shared.stages[0], row, column, rows, 0, aligned);
    for (int32_t step = 0; step < steps; ++step) {
        __pipeline_wait_prior(0);
        __syncthreads();  // this step has arrived, and the step before is used up
        if (step + 1 < steps) load_stage(of, shared.stages[(step + 1) % 2], row, column, rows, step + 1, aligned);
        multiply_stage(shared.stages[step % 2], down, across, sums);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            store_tile(of, sums[i][j], shared.out[warp], row + down + i * kWmma, column + across + j * kWmma, rows,
                       aligned);
}

// ---- float32: 64 x 64 by 256 threads, each 4 x 4 ----

using FloatTile = Tile2<64, 64, 16>;

struct FloatShared {
    float a[FloatTile::depth][FloatTile::rows + 4];
    float b[FloatTile::depth][FloatTile::columns];
};

__device__ __forceinline__ void product_float(const Product<float, float>& of, FloatShared& shared) {
    const int32_t rows = rows_of(of.rows) + of.extra;
    const int32_t row = blockIdx.x * FloatTile::rows, column = blockIdx.y * FloatTile::columns;
    if (row >= rows) return;
    const int thread = threadIdx.x, down = thread / 16 * 4, across = thread % 16 * 4;
    float sums[4][4] = {};
    for (int32_t depth = 0; depth < of.taps * kHidden; depth += FloatTile::depth) {
        const int a_row = thread / 4, a_depth = thread % 4 * 4;
        const int64_t from = gathered_row(of, row + a_row, rows, depth / kHidden) * kHidden + depth % kHidden + a_depth;
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

}  // namespace spade

#endif
