// The plan of a batch on the device: all levels of all maps at once, the same integers as the plan in
// kernels/cpu/plan/.
//
//   patch3(p) = number of the window      s[y - r .. y + r, x - r .. x + r]
//   patch5(p) = number of the window patch3[y - r .. y + r, x - r .. x + r],    r = k / 2
//
// The number of a window is the rank of its first appearance, level by level, map by map, row by row. s is the symbol
// map resized to [h, w] by NEAREST. Outside the image both maps hold a value that appears nowhere inside.
//
// Layout: positions number the pixels of all levels, one level [n, h, w] after the other; one thread for each position.
//
// Bytes per position: 4 for the symbol and 4 for each number, each written once and read k * k times from cache; about
// 8 for the hash table, which is at most three quarters full. Operations: 3 k^2 for a hash, k^2 per comparison.
//
// Fused: each step runs all levels in one launch. The plan of a batch is twelve launches and no wait.
//
// The result is exact, although the table is hashed: a slot holds the position where a window first appeared, and two
// windows are equal only if all their taps, their level and their map are equal. A slot always ends with the smallest
// position of its window, so the plan does not depend on the order of threads.
#ifndef SPADE_CUDA_PLAN_HPP
#define SPADE_CUDA_PLAN_HPP

#include <cuda_runtime.h>

#include <cstdint>

// The bits of a hash that are used. A test takes few bits, so that distinct windows collide: the plan must not change.
#ifndef SPADE_PLAN_TAG_MASK
#define SPADE_PLAN_TAG_MASK 0xFFFFFFFFu
#endif

namespace spade {

constexpr int kMaxLevels = 10;
constexpr int32_t kOutside = -1;
constexpr int32_t kEmpty = -1;    // an empty slot: all bytes are 0xFF, as memset writes them
constexpr int kScanBlock = 1024;  // positions that one block ranks

struct PlanLevels {
    int32_t count, n, map_height, map_width, kernel_size;
    int32_t height[kMaxLevels], width[kMaxLevels];
    int32_t start[kMaxLevels + 1];  // the first position of each level, then the number of all positions
};

struct Position {
    int32_t level, image, row, column;
};

__host__ __device__ inline Position position_at(const PlanLevels& levels, int32_t position) {
    Position at{};
    while (position >= levels.start[at.level + 1]) ++at.level;
    const int32_t width = levels.width[at.level], rest = position - levels.start[at.level];
    const int32_t line = rest / width;
    at.image = line / levels.height[at.level];
    at.row = line - at.image * levels.height[at.level];
    at.column = rest - line * width;
    return at;
}

// The offset of the symbol that NEAREST resizing brings to a position: source row floor(row * map_height / height).
__host__ __device__ inline int64_t source_at(const PlanLevels& levels, const Position& at, int64_t row_stride) {
    const int64_t row = static_cast<int64_t>(at.row) * levels.map_height / levels.height[at.level];
    const int64_t column = static_cast<int64_t>(at.column) * levels.map_width / levels.width[at.level];
    return (static_cast<int64_t>(at.image) * levels.map_height + row) * row_stride + column;
}

// The id at a tap of the window around a position, or kOutside.
template <int K>
__host__ __device__ inline int32_t tap_at(const PlanLevels& levels, const int32_t* ids, int32_t position,
                                          const Position& at, int tap) {
    const int32_t down = tap / K - K / 2, right = tap % K - K / 2;
    const int32_t row = at.row + down, column = at.column + right, width = levels.width[at.level];
    if (row < 0 || row >= levels.height[at.level] || column < 0 || column >= width) return kOutside;
    return ids[position + down * width + right];
}

template <int K>
__host__ __device__ inline uint32_t hash_at(const PlanLevels& levels, const int32_t* ids, int32_t position,
                                            const Position& at) {
    uint32_t hash = static_cast<uint32_t>(at.level) * 0x9E3779B9u + static_cast<uint32_t>(at.image) * 0x85EBCA6Bu;
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap) {
        hash ^= static_cast<uint32_t>(tap_at<K>(levels, ids, position, at, tap));
        hash *= 0x9E3779B1u;
        hash ^= hash >> 15;
    }
    return hash & SPADE_PLAN_TAG_MASK;
}

// Whether the windows around two positions are equal and belong to the same level and map.
template <int K>
__host__ __device__ inline bool equal_at(const PlanLevels& levels, const int32_t* ids, int32_t one, const Position& at,
                                         int32_t other) {
    if (one == other) return true;
    const Position there = position_at(levels, other);
    if (there.level != at.level || there.image != at.image) return false;
    bool equal = true;
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap)
        equal = equal && tap_at<K>(levels, ids, one, at, tap) == tap_at<K>(levels, ids, other, there, tap);
    return equal;
}

// ---- Steps, one thread for each position ----

__device__ __forceinline__ int32_t this_position() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ __forceinline__ void resize_symbols(const PlanLevels& levels, const uint16_t* symbols, int64_t row_stride,
                                               int32_t* ids) {
    const int32_t position = this_position();
    if (position >= levels.start[levels.count]) return;
    ids[position] = symbols[source_at(levels, position_at(levels, position), row_stride)];
}

// Finds the slot of the window around each position, and stores it in found[position]. slots: mask + 1 of them, a power
// of two, all kEmpty before the step.
//
// Neighbours mostly have equal windows. Only the first lane of a run of equal windows looks for the slot and hands it
// to the run: else all lanes of all warps that see the commonest window would meet in one atomic operation on one
// address.
template <int K>
__device__ __forceinline__ void insert_windows(const PlanLevels& levels, const int32_t* ids, int32_t* slots,
                                               uint32_t mask, int32_t* found) {
    constexpr unsigned kAll = 0xFFFFFFFFu;
    const int32_t own = this_position(), last = levels.start[levels.count] - 1;
    const int32_t position = own <= last ? own : last;  // every lane takes part in the exchanges below
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const Position at = position_at(levels, position);
    const uint32_t hash = hash_at<K>(levels, ids, position, at), left = __shfl_up_sync(kAll, hash, 1);
    const bool begins = lane == 0 || hash != left || !equal_at<K>(levels, ids, position, at, position - 1);
    const unsigned runs = __ballot_sync(kAll, begins);
    uint32_t slot = hash & mask;
    for (; begins; slot = (slot + 1) & mask) {
        int32_t first = __ldcg(slots + slot);
        if (first == kEmpty) first = atomicCAS(slots + slot, kEmpty, position);
        if (first == kEmpty) break;
        if (!equal_at<K>(levels, ids, position, at, first)) continue;
        // Most slots hold a smaller position already, so most threads write nothing.
        if (position < first) atomicMin(slots + slot, position);
        break;
    }
    const unsigned up_to_here = runs << (31 - lane) >> (31 - lane);
    slot = __shfl_sync(kAll, slot, 31 - __clz(static_cast<int>(up_to_here)));
    if (own <= last) found[position] = static_cast<int32_t>(slot);
}

__device__ __forceinline__ bool is_first(const int32_t* slots, const int32_t* found, int32_t position) {
    return slots[found[position]] == position;
}

// Sums flags over a block of kScanBlock positions, four for each thread. before[i]: the sum of the flags before flag i.
// Returns the sum of the whole block.
__device__ __forceinline__ int32_t block_ranks(const int32_t (&flags)[4], int32_t (&before)[4], int32_t* warp_sums) {
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, warps = blockDim.x / 32;
    const int32_t own = flags[0] + flags[1] + flags[2] + flags[3];
    int32_t sum = own;
    for (int by = 1; by < 32; by *= 2) {
        const int32_t left = __shfl_up_sync(0xFFFFFFFFu, sum, by);
        if (lane >= by) sum += left;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int32_t earlier = 0, total = 0;
    for (int i = 0; i < warps; ++i) {
        if (i < warp) earlier += warp_sums[i];
        total += warp_sums[i];
    }
    before[0] = earlier + sum - own;
    for (int i = 1; i < 4; ++i) before[i] = before[i - 1] + flags[i - 1];
    return total;
}

// Counts the windows that first appear in each block of positions.
__device__ __forceinline__ void count_firsts(int32_t positions, const int32_t* slots, const int32_t* found,
                                             int32_t* block_counts) {
    __shared__ int32_t warp_sums[32];
    int32_t flags[4], before[4];
    for (int i = 0; i < 4; ++i) {
        const int32_t position = blockIdx.x * kScanBlock + threadIdx.x * 4 + i;
        flags[i] = position < positions && is_first(slots, found, position) ? 1 : 0;
    }
    const int32_t total = block_ranks(flags, before, warp_sums);
    if (threadIdx.x == 0) block_counts[blockIdx.x] = total;
}

// Replaces each count by the sum of the counts before it. Runs in one block.
__device__ __forceinline__ void sum_counts(int32_t* counts, int32_t blocks) {
    __shared__ int32_t warp_sums[32];
    __shared__ int32_t carried;
    if (threadIdx.x == 0) carried = 0;
    for (int32_t begin = 0; begin < blocks; begin += kScanBlock) {
        int32_t values[4], before[4];
        for (int i = 0; i < 4; ++i) {
            const int32_t at = begin + threadIdx.x * 4 + i;
            values[i] = at < blocks ? counts[at] : 0;
        }
        __syncthreads();
        const int32_t base = carried, total = block_ranks(values, before, warp_sums);
        for (int i = 0; i < 4; ++i) {
            const int32_t at = begin + threadIdx.x * 4 + i;
            if (at < blocks) counts[at] = base + before[i];
        }
        __syncthreads();
        if (threadIdx.x == 0) carried = base + total;
    }
}

// ranks[slot], out: the number of windows, over all levels, that appear before the window of the slot. offsets [levels
// * n + 1], out: the number of windows that appear before each map of each level, then the number of all windows.
__device__ __forceinline__ void rank_firsts(const PlanLevels& levels, const int32_t* slots, const int32_t* found,
                                            const int32_t* block_sums, int32_t* ranks, int32_t* offsets) {
    __shared__ int32_t warp_sums[32];
    const int32_t positions = levels.start[levels.count];
    int32_t flags[4], before[4];
    for (int i = 0; i < 4; ++i) {
        const int32_t position = blockIdx.x * kScanBlock + threadIdx.x * 4 + i;
        flags[i] = position < positions && is_first(slots, found, position) ? 1 : 0;
    }
    block_ranks(flags, before, warp_sums);
    for (int i = 0; i < 4; ++i) {
        const int32_t position = blockIdx.x * kScanBlock + threadIdx.x * 4 + i;
        if (position >= positions) break;
        const int32_t rank = block_sums[blockIdx.x] + before[i];
        if (flags[i] != 0) ranks[found[position]] = rank;
        const Position at = position_at(levels, position);
        if (at.row == 0 && at.column == 0) offsets[at.level * levels.n + at.image] = rank;
        if (position == positions - 1) offsets[levels.count * levels.n] = rank + flags[i];
    }
}

// numbers[position], out: the row of the position's window in the table of its level.
__device__ __forceinline__ void number_positions(const PlanLevels& levels, const int32_t* found, const int32_t* ranks,
                                                 const int32_t* offsets, int32_t* numbers) {
    const int32_t position = this_position();
    if (position >= levels.start[levels.count]) return;
    numbers[position] = ranks[found[position]] - offsets[position_at(levels, position).level * levels.n];
}

// The tables of all levels in one buffer of rows: for each level its first row, its number of rows (room), and the
// largest id that it may hold.
struct PlanTables {
    int32_t first[kMaxLevels], room[kMaxLevels], most[kMaxLevels];
};

// Writes the table of distinct windows: rows of K * K ids. kOutside becomes the largest id or, if `counts` (the offsets
// of the previous pass) is not null, the number of windows of the level in that pass. Rows beyond a level's room are
// dropped, and an id that names a dropped row becomes `room`.
template <int K>
__device__ __forceinline__ void write_windows(const PlanLevels& levels, const int32_t* ids, const int32_t* slots,
                                              const int32_t* found, const int32_t* numbers, const int32_t* counts,
                                              const PlanTables& tables, int32_t* rows) {
    const int32_t position = this_position();
    if (position >= levels.start[levels.count] || !is_first(slots, found, position)) return;
    const Position at = position_at(levels, position);
    const int32_t number = numbers[position];
    if (number >= tables.room[at.level]) return;
    const int32_t most = tables.most[at.level];
    int32_t outside = most;
    if (counts != nullptr) outside = counts[(at.level + 1) * levels.n] - counts[at.level * levels.n];
    int32_t* row = rows + (static_cast<int64_t>(tables.first[at.level]) + number) * (K * K);
    for (int tap = 0; tap < K * K; ++tap) {
        const int32_t found_id = tap_at<K>(levels, ids, position, at, tap);
        const int32_t id = found_id == kOutside ? outside : found_id;
        row[tap] = id < most ? id : most;
    }
}

}  // namespace spade

#endif
