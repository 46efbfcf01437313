// How many threads and blocks a launch gets. This header needs no CUDA, so that tests can run it for every size.
#ifndef SPADE_CUDA_LAUNCH_HPP
#define SPADE_CUDA_LAUNCH_HPP

#include <algorithm>
#include <cstdint>

namespace spade {

constexpr int kThreads = 256;  // threads of a block: eight warps, so that 1 to 8 blocks fill a multiprocessor

// Kernels count pixels and rows in 32 bits, in loops that step past the end once: the limit stays below 2^31.
constexpr int64_t kMaxPixels = INT64_C(1) << 30;
constexpr int64_t kMaxPlanPositions = INT64_C(3) << 29;  // the hash table then has at most 2^31 slots
constexpr int64_t kMaxChannels = INT64_C(1) << 16;
constexpr int64_t kMaxBlocks = (INT64_C(1) << 31) - 1;  // gridDim.x
constexpr int64_t kMaxBlocksY = 65535;                  // gridDim.y

struct Launch {
    int64_t blocks;
    int threads_x, threads_y;
    int64_t blocks_y = 1;
    int64_t shared_bytes = 0;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The launch of a kernel over `rows` rows of `columns` accesses each. A block takes threads_x accesses side by side in
// threads_y rows, and goes through the rest in strides. `resident` is the number of blocks that run at once on the
// device (occupancy x multiprocessors); no more blocks are started.
inline Launch launch_rows(int64_t rows, int64_t columns, int64_t resident) {
    Launch launch{};
    launch.threads_x = static_cast<int>(std::clamp<int64_t>(columns, 1, kThreads));
    launch.threads_y = static_cast<int>(std::clamp<int64_t>(rows, 1, kThreads / launch.threads_x));
    launch.blocks = std::clamp<int64_t>(ceil_div(rows, launch.threads_y), 1, std::max<int64_t>(resident, 1));
    return launch;
}

// As launch_rows; in addition blocks_y blocks share long rows where there are too few rows to fill the device.
inline Launch launch_split_rows(int64_t rows, int64_t columns, int64_t resident) {
    Launch launch = launch_rows(rows, columns, resident);
    const int64_t split = ceil_div(columns, launch.threads_x), wanted = ceil_div(resident, launch.blocks);
    launch.blocks_y = std::clamp<int64_t>(std::min(split, wanted), 1, kMaxBlocksY);
    return launch;
}

// The launch of a reduction of `units` units with `items` accesses each. A block takes threads_x columns of a unit side
// by side, and the rest of its threads go along the items. A unit is split over several blocks until the device is full
// or a thread would have fewer than four items.
struct ReduceLaunch {
    Launch launch;
    int splits;
};

constexpr int64_t kMaxSplits = 64;
constexpr int64_t kMaxSplitUnits = 4096;  // the most units x splits where units are split: bounds the scratch

inline int max_splits(int64_t units) {
    return static_cast<int>(std::clamp<int64_t>(kMaxSplitUnits / units, 1, kMaxSplits));
}

inline ReduceLaunch launch_reduce(int64_t units, int threads_x, int64_t items, int64_t resident) {
    const int threads_y = kThreads / threads_x;
    const int64_t fill = ceil_div(std::max<int64_t>(resident, 1), units), fine = items / (4 * threads_y);
    const int64_t splits = std::clamp<int64_t>(std::min(fill, fine), 1, max_splits(units));
    return {{units * splits, threads_x, threads_y}, static_cast<int>(splits)};
}

// The launch of `items` independent tasks of one block each; a block of kThreads threads takes tasks in strides.
inline Launch launch_blocks(int64_t items, int64_t resident, int64_t shared_bytes = 0) {
    return {std::clamp<int64_t>(items, 1, std::max<int64_t>(resident, 1)), kThreads, 1, 1, shared_bytes};
}

// Slots of the plan's hash table: a power of two, at least a third more than the number of positions.
inline int64_t plan_slots(int64_t positions) {
    int64_t slots = 2;
    while (slots < positions + ceil_div(positions, 3)) slots *= 2;
    return slots;
}

// The launch of one thread per item.
inline Launch launch_items(int64_t items) { return {std::max<int64_t>(ceil_div(items, kThreads), 1), kThreads, 1}; }

}  // namespace spade

#endif
