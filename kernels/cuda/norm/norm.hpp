// Statistics of a map, and the gradient through them.
//
//   mean = E[x],  rstd = 1 / sqrt(E[(x - mean)^2] + epsilon)
//   dx = rstd * (g - E[g] - xn * E[g xn]),   xn = (x - mean) rstd,   g the gradient at xn
//
// E is the mean over the pixels of one image (instance norm, groups = n) or of all images (batch norm, groups = 1), for
// each channel.
//
// Layout: NHWC or NCHW map; statistics [groups][C].
//
// Bytes per element, E = sizeof(T): statistics read E; the sums of the gradient read 2 E; applying them reads 2 E and
// writes E.
// Operations: the moments of four pixels take 13 and are merged by 4 and one division of the whole thread; the sums
// take 4 per pixel; applying them 5.
//
// A thread loads four items before it adds the first: one item of 16 bytes for each thread does not fill the memory's
// latency.
//
// Fused: one launch does the whole reduction. Several blocks share a group, and the block that finishes last merges
// their results in one fixed order, which gives the same bits every time.
#ifndef SPADE_CUDA_NORM_HPP
#define SPADE_CUDA_NORM_HPP

#include "cuda/device/elementwise.hpp"
#include "cuda/norm/sums.hpp"

namespace spade {

constexpr int kReduceThreads = 256;

struct ReduceShape {
    int32_t groups, images, channels, pixels;  // images in a group, pixels in an image
    int32_t splits;                            // blocks that share a unit
    bool nhwc;
    Divisor image_vectors;  // NCHW: accesses of one plane
};

// ---- Units of a reduction ----

// What one block reduces: V channels for each thread side by side (NHWC), or one channel's planes (NCHW).
struct Unit {
    int32_t group, channel, split;  // channel: the first channel of the block
};

__host__ __device__ inline int32_t unit_channels(const ReduceShape& shape, int32_t threads_x, int32_t wide) {
    return shape.nhwc ? threads_x * wide : 1;
}

__host__ __device__ inline int32_t units_across(const ReduceShape& shape, int32_t threads_x, int32_t wide) {
    const int32_t each = unit_channels(shape, threads_x, wide);
    return (shape.channels + each - 1) / each;
}

__host__ __device__ inline Unit unit_at(const ReduceShape& shape, int32_t threads_x, int32_t wide, int32_t block) {
    const int32_t across = units_across(shape, threads_x, wide), rest = block / shape.splits;
    return {rest / across, rest % across * unit_channels(shape, threads_x, wide), block % shape.splits};
}

// The accesses that reduce one channel of a group: pixels (NHWC) or vectors of pixels (NCHW).
__host__ __device__ inline int32_t group_items(const ReduceShape& shape, int32_t wide) {
    return shape.images * (shape.nhwc ? shape.pixels : shape.pixels / wide);
}

__host__ __device__ inline int64_t item_offset(const ReduceShape& shape, int32_t wide, int32_t group, int32_t channel,
                                               int32_t item) {
    if (shape.nhwc) {
        const int64_t pixel = static_cast<int64_t>(group) * shape.images * shape.pixels + item;
        return pixel * shape.channels + channel;
    }
    const int32_t image = divide(item, shape.image_vectors), vector = item - image * (shape.pixels / wide);
    const int64_t plane = (static_cast<int64_t>(group) * shape.images + image) * shape.channels + channel;
    return plane * shape.pixels + static_cast<int64_t>(vector) * wide;
}

// ---- The reduction ----

// first and second: [groups][C], out. partials: [groups][C][splits][3], scratch. counters: [blocks / splits], zero.
struct ReduceTargets {
    float *first, *second;
    float* partials;
    unsigned* counters;
    float epsilon;
};

// Merges the threads of each column into the first row and, with join_lanes, the V lanes of a thread into the first
// lane.
template <typename Sums, int V>
__device__ void merge_block(Sums* all, bool join_lanes) {
    const int column = threadIdx.x, columns = blockDim.x, row = threadIdx.y;
    for (int active = blockDim.y; active > 1;) {
        const int half = (active + 1) / 2;
        __syncthreads();
        if (row < active - half) merge<Sums, V>(all[row * columns + column], all[(row + half) * columns + column]);
        active = half;
    }
    __syncthreads();
    if (!join_lanes || row != 0) return;
    Sums& own = all[column];
    float count = own.count;
    for (int i = 1; i < V; ++i)
        Sums::merge_lane(count, own.first[0], own.second[0], own.count, own.first[i], own.second[i]);
    own.count = count;
}

template <typename Sums>
__device__ void merge_splits(const ReduceShape& shape, const ReduceTargets& targets, int64_t at) {
    const float* partial = targets.partials + at * shape.splits * 3;
    float count = 0, first = 0, second = 0;
    for (int32_t split = 0; split < shape.splits; ++split, partial += 3)
        Sums::merge_lane(count, first, second, __ldcg(partial), __ldcg(partial + 1), __ldcg(partial + 2));
    Sums::finish(count, targets.epsilon, first, second);
    targets.first[at] = first;
    targets.second[at] = second;
}

template <typename T>
struct ReduceSources {
    const T *x, *g;  // GradientSums only: g, mean and rstd
    const float *mean, *rstd;
};

// Reads At items, `step` apart, and adds them to `own`. All loads come before the first addition.
template <typename T, int V, typename Sums, int At>
__device__ __forceinline__ void add_items(Sums& own, const ReduceSources<T>& of, const ReduceShape& shape,
                                          const Unit& unit, int32_t channel, int32_t item, int32_t step,
                                          const float (&centre)[V], const float (&scale)[V]) {
    Vector<T, V> values[At], gradients[At];
#pragma unroll
    for (int j = 0; j < At; ++j) {
        const int64_t offset = item_offset(shape, V, unit.group, channel, item + j * step);
        values[j] = load<T, V>(of.x + offset);
        if constexpr (Sums::kTwo) gradients[j] = load<T, V>(of.g + offset);
    }
    float wide[At][V], gradient[At][V];
#pragma unroll
    for (int j = 0; j < At; ++j)
#pragma unroll
        for (int i = 0; i < V; ++i) {
            wide[j][i] = to_float(values[j].values[i]);
            if constexpr (Sums::kTwo) {
                wide[j][i] = (wide[j][i] - centre[i]) * scale[i];
                gradient[j][i] = to_float(gradients[j].values[i]);
            }
        }
    if constexpr (At == 4)
        own.add_four(wide, gradient);
    else
        own.add(wide[0], gradient[0]);
}

// Sums this thread's share of a unit: V lanes from `channel` on.
template <typename T, int V, typename Sums>
__device__ __forceinline__ Sums sum_items(const ReduceSources<T>& of, const ReduceShape& shape, const Unit& unit,
                                          int32_t channel) {
    const int64_t row = static_cast<int64_t>(unit.group) * shape.channels + channel;
    const int32_t items = group_items(shape, V), each = (items + shape.splits - 1) / shape.splits;
    const int32_t end = min(items, (unit.split + 1) * each), step = blockDim.y;
    Sums own;
    own.clear();
    float centre[V], scale[V];
    for (int i = 0; Sums::kTwo && i < V; ++i) {
        centre[i] = of.mean[row + (shape.nhwc ? i : 0)];
        scale[i] = of.rstd[row + (shape.nhwc ? i : 0)];
    }
    int32_t item = unit.split * each + threadIdx.y;
    for (; item + 3 * step < end; item += 4 * step)
        add_items<T, V, Sums, 4>(own, of, shape, unit, channel, item, step, centre, scale);
    for (; item < end; item += step) add_items<T, V, Sums, 1>(own, of, shape, unit, channel, item, step, centre, scale);
    return own;
}

// Writes a block's sums of one channel: the result or, if several blocks share the unit, a partial result.
template <typename Sums>
__device__ void write_lane(const ReduceShape& shape, const ReduceTargets& targets, int64_t at, int32_t split,
                           float count, float first, float second) {
    if (shape.splits > 1) {
        float* partial = targets.partials + (at * shape.splits + split) * 3;
        partial[0] = count, partial[1] = first, partial[2] = second;
        return;
    }
    Sums::finish(count, targets.epsilon, first, second);
    targets.first[at] = first;
    targets.second[at] = second;
}

// Whether this block is the last of its unit to finish. It can then read the partial results of the other blocks.
__device__ __forceinline__ bool is_last_of_unit(const ReduceShape& shape, const ReduceTargets& targets) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0)
        last = atomicAdd(&targets.counters[blockIdx.x / shape.splits], 1u) + 1 == static_cast<unsigned>(shape.splits);
    __syncthreads();
    __threadfence();
    return last;
}

template <typename T, int V, template <int> class SumsOf>
__device__ __forceinline__ void reduce_groups(const ReduceSources<T>& of, const ReduceShape& shape,
                                              const ReduceTargets& targets) {
    using Sums = SumsOf<V>;
    __shared__ Sums all[kReduceThreads];
    const Unit unit = unit_at(shape, blockDim.x, V, blockIdx.x);
    const int32_t channel = unit.channel + (shape.nhwc ? static_cast<int32_t>(threadIdx.x) * V : 0);
    Sums own;
    own.clear();
    if (channel < shape.channels) own = sum_items<T, V, Sums>(of, shape, unit, channel);
    all[threadIdx.y * blockDim.x + threadIdx.x] = own;
    merge_block<Sums, V>(all, !shape.nhwc);
    const int64_t at = static_cast<int64_t>(unit.group) * shape.channels + channel;
    const int lanes = threadIdx.y != 0 || channel >= shape.channels ? 0 : shape.nhwc ? V : 1;
    const Sums& sums = all[threadIdx.x];
    for (int i = 0; i < lanes; ++i)
        write_lane<Sums>(shape, targets, at + i, unit.split, sums.count, sums.first[i], sums.second[i]);
    if (shape.splits == 1 || !is_last_of_unit(shape, targets)) return;
    for (int i = 0; i < lanes; ++i) merge_splits<Sums>(shape, targets, at + i);
}

// ---- The gradient through the statistics ----

// dx = rstd * (g - first - xn * second); dx may be g.
template <typename T, int V, bool Nhwc>
__device__ __forceinline__ void apply_gradient(const T* __restrict__ x, const T* g, const float* __restrict__ mean,
                                               const float* __restrict__ rstd, const float* __restrict__ first,
                                               const float* __restrict__ second, T* dx, const ElementwiseShape& shape) {
    StatisticsCache<V, Nhwc> known, sums;
    for_each_vector<V, Nhwc>(shape, [&](const ElementPlace& at, int32_t, int32_t) {
        const Vector<T, V> values = load<T, V>(x + at.map), gradients = load<T, V>(g + at.map);
        known.move(mean, rstd, at.statistics);
        sums.move(first, second, at.statistics);
        float result[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int lane = Nhwc ? i : 0;
            const float scale = known.rstd[lane], xn = (to_float(values.values[i]) - known.mean[lane]) * scale;
            result[i] = scale * (to_float(gradients.values[i]) - sums.mean[lane] - xn * sums.rstd[lane]);
        }
        store<T, V>(dx + at.map, result);
    });
}

}  // namespace spade

#endif
