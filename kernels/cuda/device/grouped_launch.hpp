// A grouped launch: several problems of one kernel in one launch, and the search for the problem that owns a tile.
//
// A problem is one operation on its own data, such as the codebook of one norm. A generator's norms belong to small and
// large levels; with one launch each, most of the device would idle most of the time. The tiles of all problems are
// numbered one problem after the other, and blocks take tiles in strides. The number of rows of a problem may be known
// on the device only, so every warp sums the tiles up itself: lane i holds problem i.
#ifndef SPADE_CUDA_GROUPED_LAUNCH_HPP
#define SPADE_CUDA_GROUPED_LAUNCH_HPP

#include <cuda_runtime.h>

#include <cstdint>

namespace spade {

constexpr int kMaxProblems = 32;  // one for each lane of a warp; the arguments then fit a kernel's 4 KB of parameters

template <typename Problem>
struct GroupedLaunch {
    Problem problems[kMaxProblems];
    int32_t count;
};

// A number of rows: `most`, or *last - *first if these pointers are not null, so that the host need not wait.
struct RowCount {
    int32_t most;  // rows that memory has room for
    const int32_t *first, *last;
};

__host__ __device__ inline int32_t rows_of(const RowCount& count) {
    if (count.first == nullptr) return count.most;
    const int32_t rows = *count.last - *count.first;
    return rows < count.most ? rows : count.most;
}

// What one lane holds: the rows and the first tile of its problem; and the number of tiles of all problems.
struct ProblemLane {
    int32_t rows, first, tiles;
};

struct ProblemTile {
    int32_t problem, rows, tile;  // rows of the problem, and the tile's number within the problem
};

__device__ __forceinline__ int this_lane() { return static_cast<int>(threadIdx.x + threadIdx.y * blockDim.x) % 32; }

// Calls rows_of_problem(i) and tiles_of_problem(i, rows) for this lane's problem only. A block must consist of whole
// warps.
template <typename RowsOf, typename TilesOf>
__device__ __forceinline__ ProblemLane count_tiles(int32_t problems, const RowsOf& rows_of_problem,
                                                   const TilesOf& tiles_of_problem) {
    const int lane = this_lane();
    ProblemLane own{};
    if (lane < problems) {
        own.rows = rows_of_problem(lane);
        own.tiles = tiles_of_problem(lane, own.rows);
    }
    int32_t sum = own.tiles;
    for (int by = 1; by < 32; by *= 2) {
        const int32_t left = __shfl_up_sync(0xFFFFFFFFu, sum, by);
        if (lane >= by) sum += left;
    }
    own.first = sum - own.tiles;
    own.tiles = __shfl_sync(0xFFFFFFFFu, sum, 31);
    return own;
}

// The problem that owns a tile. All lanes must ask for the same tile, and the tile must exist. A problem without tiles
// begins where the next problem does, so the owner is the last problem that begins at or before the tile.
__device__ __forceinline__ ProblemTile find_tile(const ProblemLane& own, int32_t tile) {
    const unsigned begun = __ballot_sync(0xFFFFFFFFu, own.first <= tile);
    const int problem = 31 - __clz(static_cast<int>(begun));
    return {problem, __shfl_sync(0xFFFFFFFFu, own.rows, problem), tile - __shfl_sync(0xFFFFFFFFu, own.first, problem)};
}

}  // namespace spade

#endif
