// Several jobs of one kernel in one launch: which job a block's tile belongs to.
//
// The norms of a generator have small and large levels; one launch each would leave most of the device idle most of the
// time. Their tiles are numbered one job after the other, and blocks take them in strides. How many rows a job has may
// be known on the device only, so every warp adds the jobs up itself: lane j holds job j.
#ifndef SPADE_CUDA_JOBS_HPP
#define SPADE_CUDA_JOBS_HPP

#include <cuda_runtime.h>

#include <cstdint>

namespace spade {

constexpr int kMaxJobs = 32;  // lanes of a warp; what the kernels take of each then fits 4 KB of parameters

template <typename Job>
struct Jobs {
    Job job[kMaxJobs];
    int32_t count;
};

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

// Of one lane: its job's rows and first tile; and the number of all tiles.
struct JobLane {
    int32_t rows, first, tiles;
};

struct JobTile {
    int32_t job, rows, tile;  // rows of the job, tile within it
};

__device__ __forceinline__ int this_lane() { return static_cast<int>(threadIdx.x + threadIdx.y * blockDim.x) % 32; }

// rows_of_job(job) and tiles_of_job(job, rows) are asked for this lane's job only. Blocks must be of whole warps.
template <typename RowsOf, typename TilesOf>
__device__ __forceinline__ JobLane count_tiles(int32_t jobs, const RowsOf& rows_of_job, const TilesOf& tiles_of_job) {
    const int lane = this_lane();
    JobLane own{};
    if (lane < jobs) {
        own.rows = rows_of_job(lane);
        own.tiles = tiles_of_job(lane, own.rows);
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

// Of a tile below the number of all tiles, the same for all lanes. Jobs without tiles begin where the next does: the
// last that begins at or before the tile holds it.
__device__ __forceinline__ JobTile find_tile(const JobLane& own, int32_t tile) {
    const unsigned begun = __ballot_sync(0xFFFFFFFFu, own.first <= tile);
    const int job = 31 - __clz(static_cast<int>(begun));
    return {job, __shfl_sync(0xFFFFFFFFu, own.rows, job), tile - __shfl_sync(0xFFFFFFFFu, own.first, job)};
}

}  // namespace spade

#endif
