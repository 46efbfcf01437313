// SPADE's modulation through the plan's index: each pixel reads its a and b from the codebook, so that gamma and beta
// are never stored per pixel.
//
//   out[p][c] = act(a[index[p]][c] * ((x[q][c] - mean[c]) * rstd[c]) + b[index[p]][c]),   q = p, or p upsampled from x
//
// Layout: maps NHWC, or NCHW through tiles in shared memory; entries [U5][2][C], so a row is read along the channels.
//
// Bytes, E = sizeof(T), per pixel of out: writes E C; reads E C (E C / 4 with the x2 upsampling) and 4 for the index.
// The entries, 2 E C U5 in all, come from the L1 and L2 caches: neighbours share patches, and the plan numbers patches
// in scan order. Operations: one fused multiply-add per element, two more with a norm, and a select.
//
// Fused: normalisation, the x2 upsampling (in the read of x) and the activation.
//
// A thread of the NHWC kernel takes a group of four pixels: with the upsampling, the four that share one pixel of x,
// which is read once; otherwise four neighbours. The thread loads all four before it stores the first, and meanwhile
// the index of its next group, because a pixel waits first for its index and then for its row of entries.
#ifndef SPADE_CUDA_MODULATE_CODEBOOK_HPP
#define SPADE_CUDA_MODULATE_CODEBOOK_HPP

#include "cuda/device/elementwise.hpp"

namespace spade {

struct ModulateShape {
    int32_t n, height, width, channels;  // of out
    int32_t shift;
    int32_t rows;  // of entries
    int64_t statistics_stride;
};

// The shape of the forward or the backward pass.
template <typename Args>
ModulateShape modulate_shape(const Args& args) {
    return {static_cast<int32_t>(args.n),
            static_cast<int32_t>(args.height),
            static_cast<int32_t>(args.width),
            static_cast<int32_t>(args.channels),
            static_cast<int32_t>(args.shift),
            static_cast<int32_t>(args.rows),
            args.statistics_stride};
}

// The row of entries that an index names. An index below 0 or beyond the last row names the last row, so that every
// index is safe to read.
__host__ __device__ inline int32_t entry_at(int32_t rows, int32_t index) {
    return static_cast<uint32_t>(index) < static_cast<uint32_t>(rows) ? index : rows - 1;
}

// ---- Which pixels a thread takes ----

struct Group {
    int32_t count;      // pixels of the group, 1..4
    int32_t pixels[4];  // pixels of out; those beyond `count` repeat the last one, so that all four are safe to read
    int32_t source;     // with the upsampling: the group's pixel of x; without it, x and out share their pixels
};

// The number of groups: with the upsampling, one for each pixel of x; otherwise one for each four pixels. Up is
// shape.shift where the compiler knows it: a kernel of one variant then has no code of the other.
template <bool Up>
__host__ __device__ inline int32_t group_count(const ModulateShape& shape) {
    const int32_t pixels = shape.n * shape.height * shape.width;
    return Up ? pixels / 4 : (pixels + 3) / 4;
}

template <bool Up>
__host__ __device__ inline Group group_at(const ModulateShape& shape, int32_t group) {
    Group at{};
    if constexpr (Up) {
        const int32_t width = shape.width / 2, row = group / width, column = group - row * width;
        const int32_t first = 2 * row * shape.width + 2 * column;
        at.count = 4;
        at.source = group;
        for (int32_t i = 0; i < 4; ++i) at.pixels[i] = first + (i & 1) + (i >> 1) * shape.width;
        return at;
    }
    const int32_t pixels = shape.n * shape.height * shape.width, first = 4 * group;
    at.count = pixels - first < 4 ? pixels - first : 4;
    at.source = first;
    for (int32_t i = 0; i < 4; ++i) at.pixels[i] = i < at.count ? first + i : pixels - 1;
    return at;
}

// The pixel of x that a pixel of out reads, both counted within one image.
__host__ __device__ inline int32_t source_pixel(const ModulateShape& shape, int32_t pixel) {
    if (shape.shift == 0) return pixel;
    const int32_t row = pixel / shape.width, column = pixel - row * shape.width;
    return (row / 2) * (shape.width / 2) + column / 2;
}

// ---- NHWC ----

template <bool Up>
__device__ __forceinline__ void read_index(const ModulateShape& shape, const int32_t* __restrict__ index, int32_t group,
                                           int32_t (&rows)[4]) {
    const Group at = group_at<Up>(shape, group);
#pragma unroll
    for (int i = 0; i < 4; ++i) rows[i] = index[at.pixels[i]];
}

// Blackwell computes on pairs of float32, which take aligned pairs of registers: fewer pixels and blocks fit.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kPacksFloats = true;
#else
constexpr bool kPacksFloats = false;
#endif

template <typename T, int V, bool Up, bool Norm>
__device__ __forceinline__ void modulate_nhwc(const T* __restrict__ x, const T* __restrict__ entries,
                                              const int32_t* __restrict__ index, const float* __restrict__ mean,
                                              const float* __restrict__ rstd, T* __restrict__ out,
                                              const ModulateShape& shape, float slope) {
    constexpr int kAtOnce = Norm && kPacksFloats ? 2 : 4;  // pixels under way
    const int32_t groups = group_count<Up>(shape), vectors = shape.channels / V;
    const int32_t image = shape.height * shape.width;
    const int64_t channels = shape.channels;
    StatisticsCache<V, true> known;
    const int32_t stride = gridDim.x * blockDim.y;
    int32_t group = blockIdx.x * blockDim.y + threadIdx.y, next[4] = {};
    if (group < groups) read_index<Up>(shape, index, group, next);
    for (; group < groups; group += stride) {
        const Group at = group_at<Up>(shape, group);
        int32_t rows[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) rows[i] = entry_at(shape.rows, next[i]);
        if (group + stride < groups) read_index<Up>(shape, index, group + stride, next);
        for (int32_t vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
            const int32_t channel = vector * V;
            Vector<T, V> values[Up ? 1 : kAtOnce], a[kAtOnce], b[kAtOnce];
            if constexpr (Up) values[0] = load<T, V>(x + at.source * channels + channel);
#pragma unroll
            for (int first = 0; first < 4; first += kAtOnce) {
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    const T* entry = entries + rows[first + i] * 2 * channels + channel;
                    if constexpr (!Up) values[i] = load<T, V>(x + at.pixels[first + i] * channels + channel);
                    a[i] = load<T, V>(entry);
                    b[i] = load<T, V>(entry + channels);
                }
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    const int32_t pixel = at.pixels[first + i];
                    float result[V];
                    if constexpr (Norm) known.move(mean, rstd, pixel / image * shape.statistics_stride + channel);
#pragma unroll
                    for (int j = 0; j < V; ++j) {
                        float value = to_float(values[Up ? 0 : i].values[j]);
                        if constexpr (Norm) value = (value - known.mean[j]) * known.rstd[j];
                        value = fmaf(to_float(a[i].values[j]), value, to_float(b[i].values[j]));
                        result[j] = value > 0 ? value : value * slope;
                    }
                    // Only the store is guarded: all four pixels are safe to read, and a guarded load would sink below
                    // the stores of the pixels before it.
                    if (Up || first + i < at.count) store<T, V>(out + pixel * channels + channel, result);
                }
            }
        }
    }
}

// ---- NCHW ----

constexpr int kTile = 32;  // pixels and channels of a tile: a warp reads x along the pixels, entries along the channels

struct Tile {
    int32_t image, pixel, channel;  // the first pixel, counted within the image, and the first channel
};

__host__ __device__ inline int32_t tiles_of(int32_t size) { return (size + kTile - 1) / kTile; }

__host__ __device__ inline int64_t tile_count(const ModulateShape& shape) {
    return static_cast<int64_t>(shape.n) * tiles_of(shape.height * shape.width) * tiles_of(shape.channels);
}

// Neighbouring tiles differ in their channels, so that concurrent blocks share the index and rows of entries.
__host__ __device__ inline Tile tile_at(const ModulateShape& shape, int64_t tile) {
    const int32_t across = tiles_of(shape.channels), along = tiles_of(shape.height * shape.width);
    const int64_t rest = tile / across;
    return {static_cast<int32_t>(rest / along), static_cast<int32_t>(rest % along) * kTile,
            static_cast<int32_t>(tile % across) * kTile};
}

template <typename T>
__device__ __forceinline__ void modulate_nchw(const T* __restrict__ x, const T* __restrict__ entries,
                                              const int32_t* __restrict__ index, const float* __restrict__ mean,
                                              const float* __restrict__ rstd, T* __restrict__ out,
                                              const ModulateShape& shape, float slope) {
    __shared__ float values[kTile][kTile + 1];  // [channel][pixel]; the extra column avoids bank conflicts
    const int32_t image = shape.height * shape.width, source_image = image >> (2 * shape.shift);
    const int64_t channels = shape.channels, tiles = tile_count(shape);
    const int lane = threadIdx.x % kTile, warp = threadIdx.x / kTile, warps = blockDim.x / kTile;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_at(shape, tile);
        const int32_t pixel = at.pixel + lane, source = source_pixel(shape, pixel);
        for (int i = warp; i < kTile; i += warps) {
            const int32_t channel = at.channel + i;
            if (channel >= shape.channels || pixel >= image) continue;
            values[i][lane] = to_float(x[(at.image * channels + channel) * source_image + source]);
        }
        __syncthreads();
        for (int i = warp; i < kTile; i += warps) {
            const int32_t channel = at.channel + lane;
            if (channel >= shape.channels || at.pixel + i >= image) continue;
            const int64_t row = entry_at(shape.rows, index[static_cast<int64_t>(at.image) * image + at.pixel + i]);
            float value = values[lane][i];
            if (mean != nullptr) {
                const int64_t statistics = at.image * shape.statistics_stride + channel;
                value = (value - mean[statistics]) * rstd[statistics];
            }
            const T* entry = entries + row * 2 * channels + channel;
            value = fmaf(to_float(entry[0]), value, to_float(entry[channels]));
            values[lane][i] = value > 0 ? value : value * slope;
        }
        __syncthreads();
        for (int i = warp; i < kTile; i += warps) {
            const int32_t channel = at.channel + i;
            if (channel >= shape.channels || pixel >= image) continue;
            out[(at.image * channels + channel) * image + pixel] = from_float<T>(values[i][lane]);
        }
        __syncthreads();
    }
}

}  // namespace spade

#endif
