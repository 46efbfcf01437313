// Sums of gathered rows, several problems in one launch.
//
//   out[u] = act(bias + sum over taps t of table[t][patches[u][t]])
//
// Layout: a block computes a tile of 16 rows of one problem; neighbouring threads take neighbouring vectors of a row.
//
// Bytes, E = sizeof(T), D = depth: per row, reads 4 taps + taps D sizeof(Table) from the L2 cache and writes E D.
// Operations: taps D additions.
//
// Fused: the activation. A thread loads all taps of a row before it adds the first, because it has no other work to
// hide the latency of a load.
#ifndef SPADE_CUDA_GATHER_HPP
#define SPADE_CUDA_GATHER_HPP

#include "cuda/device/grouped_launch.hpp"
#include "cuda/device/vectors.hpp"

namespace spade {

constexpr int kGatherRows = 16;

template <typename Table, typename T>
struct Gather {
    const Table* table;  // row r of tap t at t * tap_stride + r * row_stride
    const float* bias;   // [depth]
    const int32_t* patches;
    T* out;  // [rows + zero_row][depth]
    int64_t tap_stride, row_stride;
    RowCount rows;
    int32_t taps, depth, relu, zero_row, wide;
};

__host__ __device__ inline int32_t gather_tiles(int32_t rows) { return (rows + kGatherRows - 1) / kGatherRows; }

// Taps: the number of taps if it is known to the compiler, or 0.
template <typename Table, typename T, int V, int Taps>
__device__ __forceinline__ void gather_row(const Gather<Table, T>& of, int32_t row, int32_t channel, float (&sum)[V]) {
    constexpr int kAtOnce = Taps == 0 ? 1 : Taps;  // loads in flight
    const int32_t taps = Taps == 0 ? of.taps : Taps;
    const int32_t* patches = of.patches + static_cast<int64_t>(row) * taps;
    for (int i = 0; i < V; ++i) sum[i] = of.bias[channel + i];
    for (int32_t first = 0; first < taps; first += kAtOnce) {
        Vector<Table, V> values[kAtOnce];
#pragma unroll
        for (int tap = 0; tap < kAtOnce; ++tap) {
            const int64_t from = patches[first + tap];
            values[tap] = load<Table, V>(of.table + (first + tap) * of.tap_stride + from * of.row_stride + channel);
        }
#pragma unroll
        for (int tap = 0; tap < kAtOnce; ++tap)
#pragma unroll
            for (int i = 0; i < V; ++i) sum[i] += to_float(values[tap].values[i]);
    }
    for (int i = 0; of.relu != 0 && i < V; ++i) sum[i] = sum[i] > 0 ? sum[i] : 0;
}

template <typename Table, typename T, int V>
__device__ __forceinline__ void gather_tile(const Gather<Table, T>& of, const ProblemTile& at) {
    const int32_t vectors = of.depth / V;
    for (int32_t item = threadIdx.x; item < kGatherRows * vectors; item += blockDim.x) {
        const int32_t row = at.tile * kGatherRows + item / vectors, channel = item % vectors * V;
        if (row >= at.rows + of.zero_row) continue;
        float sum[V] = {};
        if (row < at.rows) {
            if (of.taps == 9)
                gather_row<Table, T, V, 9>(of, row, channel, sum);
            else
                gather_row<Table, T, V, 0>(of, row, channel, sum);
        }
        store<T, V>(of.out + static_cast<int64_t>(row) * of.depth + channel, sum);
    }
}

template <typename Table, typename T>
__device__ __forceinline__ void gather_sum(const GroupedLaunch<Gather<Table, T>>& grouped) {
    const ProblemLane own = count_tiles(
        grouped.count, [&](int problem) { return rows_of(grouped.problems[problem].rows); },
        [&](int problem, int32_t rows) { return gather_tiles(rows + grouped.problems[problem].zero_row); });
    for (int32_t tile = blockIdx.x; tile < own.tiles; tile += gridDim.x) {
        const ProblemTile at = find_tile(own, tile);
        const Gather<Table, T>& of = grouped.problems[at.problem];
        if (of.wide != 0)
            gather_tile<Table, T, kWide<Table>>(of, at);
        else
            gather_tile<Table, T, 1>(of, at);
    }
}

}  // namespace spade

#endif
