// The gradients of modulate_codebook.hpp: at x, and at the entries, where each row sums over the pixels of its patch.
//
//   d[p] = dy[p] act'(a xn + b),   g[q] = sum over the pixels p that read q of a[index[p]] d[p]
//   da[u] = sum over index[p] = u of d[p] xn[q],   db[u] = sum over index[p] = u of d[p]
//
// An index that is no row of entries stands for the last row, as in the forward pass.
//
// Layout: maps NHWC, entries [U5][2][C], the gradient at the entries float32. The gradient at x is rstd g where the
// statistics do not depend on x. Otherwise it is g, and norm.hpp carries it through the statistics.
//
// Bytes, E = sizeof(T), per element of out: the gradient at x reads 2 E and writes E; the gradient at the entries reads
// 2 E again (E / 4 for x with the upsampling). The index costs 4 per pixel, the sorted index 12. Operations: 9 and 6.
//
// Fused: the x2 upsampling and the activation, both backwards. The gradient at the entries sums in one of two ways:
//   sorted   takes the pixels in the order of their patch (a stable sort of the index, once per level), in chunks. Sums
//            that cross chunks are stored as partial sums and added in one fixed order: the same bits every time.
//   atomic   takes the pixels in scan order, where neighbours mostly share a patch: one atomic addition per run.
#ifndef SPADE_CUDA_MODULATE_CODEBOOK_BACKWARD_HPP
#define SPADE_CUDA_MODULATE_CODEBOOK_BACKWARD_HPP

#include "cuda/modulate/modulate_codebook.hpp"

namespace spade {

constexpr int kChunk = 64;  // pixels that one thread sums

template <typename T>
struct CodebookBackward {
    const T *x, *entries, *dy;
    const int32_t* index;
    const float *mean, *rstd;  // null: no normalisation
    T* dx;
    float* dentries;  // [U5][2][C]
    ModulateShape shape;
    float slope;
};

// The row of entries of the pixel at a place of the sorted index.
__host__ __device__ inline int32_t sorted_row(const int32_t* sorted, int32_t rows, int32_t place) {
    return entry_at(rows, sorted[place]);
}

// ---- One pixel, V channels ----

template <typename T, int V>
struct Gradient {
    float d[V], xn[V], a[V], scale[V];
};

template <typename T, int V>
__device__ __forceinline__ Gradient<T, V> gradient_at(const CodebookBackward<T>& of, int32_t pixel, int32_t source,
                                                      int32_t row, int32_t channel) {
    const int64_t channels = of.shape.channels;
    const T* entry = of.entries + row * 2 * channels + channel;
    const Vector<T, V> values = load<T, V>(of.x + source * channels + channel);
    const Vector<T, V> dy = load<T, V>(of.dy + pixel * channels + channel);
    const Vector<T, V> a = load<T, V>(entry), b = load<T, V>(entry + channels);
    const int32_t image = pixel / (of.shape.height * of.shape.width);
    const int64_t statistics = image * of.shape.statistics_stride + channel;
    Gradient<T, V> at;
#pragma unroll
    for (int i = 0; i < V; ++i) {
        at.scale[i] = of.rstd != nullptr ? of.rstd[statistics + i] : 1.0f;
        const float centre = of.mean != nullptr ? of.mean[statistics + i] : 0.0f;
        at.xn[i] = (to_float(values.values[i]) - centre) * at.scale[i];
        at.a[i] = to_float(a.values[i]);
        const float value = fmaf(at.a[i], at.xn[i], to_float(b.values[i]));
        at.d[i] = to_float(dy.values[i]) * (value > 0 ? 1.0f : of.slope);
    }
    return at;
}

// ---- At x ----

template <typename T, int V>
__device__ __forceinline__ void codebook_gradient_x(const CodebookBackward<T>& of, bool scaled) {
    const ModulateShape& shape = of.shape;
    const int32_t vectors = shape.channels / V, groups = (shape.n * shape.height * shape.width) >> (2 * shape.shift);
    const int32_t pixels = shape.shift != 0 ? 4 : 1;
    for (int32_t group = blockIdx.x * blockDim.y + threadIdx.y; group < groups; group += gridDim.x * blockDim.y) {
        for (int32_t vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
            float g[V] = {};
            for (int32_t i = 0; i < pixels; ++i) {
                const int32_t pixel = shape.shift != 0 ? group_at<true>(shape, group).pixels[i] : group;
                const Gradient<T, V> at =
                    gradient_at<T, V>(of, pixel, group, entry_at(shape.rows, of.index[pixel]), vector * V);
#pragma unroll
                for (int j = 0; j < V; ++j) g[j] = fmaf(at.a[j] * (scaled ? at.scale[j] : 1.0f), at.d[j], g[j]);
            }
            store<T, V>(of.dx + group * static_cast<int64_t>(shape.channels) + vector * V, g);
        }
    }
}

// ---- At the entries ----

// The pixel of x that a pixel of out reads, both counted over all images. Heights are even where x is upsampled, so the
// images below each other are one tall image.
__host__ __device__ inline int32_t source_of(const ModulateShape& shape, int32_t pixel) {
    return source_pixel(shape, pixel);
}

template <int V>
struct EntrySums {
    float a[V], b[V];

    __device__ void clear() {
        for (int i = 0; i < V; ++i) a[i] = b[i] = 0;
    }

    template <typename T>
    __device__ void add(const Gradient<T, V>& at) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            a[i] = fmaf(at.d[i], at.xn[i], a[i]);
            b[i] += at.d[i];
        }
    }

    __device__ void store_to(float* row, int64_t channels) const {
        for (int i = 0; i < V; ++i) row[i] = a[i], row[channels + i] = b[i];
    }

    __device__ void add_to(float* row, int64_t channels) const {
        for (int i = 0; i < V; ++i) atomicAdd(row + i, a[i]), atomicAdd(row + channels + i, b[i]);
    }
};

// Calls body(chunk, begin, end, channel) for every chunk of pixels begin .. end - 1, and every vector of V channels in
// it, that belongs to this thread.
template <int V, typename Body>
__device__ __forceinline__ void for_each_chunk(const ModulateShape& shape, const Body& body) {
    const int32_t pixels = shape.n * shape.height * shape.width, vectors = shape.channels / V;
    const int32_t chunks = (pixels + kChunk - 1) / kChunk;
    for (int32_t chunk = blockIdx.x * blockDim.y + threadIdx.y; chunk < chunks; chunk += gridDim.x * blockDim.y)
        for (int32_t vector = threadIdx.x; vector < vectors; vector += blockDim.x)
            body(chunk, chunk * kChunk, min(pixels, (chunk + 1) * kChunk), vector * V);
}

template <typename T, int V>
__device__ __forceinline__ void codebook_gradient_atomic(const CodebookBackward<T>& of) {
    const ModulateShape& shape = of.shape;
    const int64_t channels = shape.channels;
    for_each_chunk<V>(shape, [&](int32_t, int32_t begin, int32_t end, int32_t channel) {
        EntrySums<V> sums;
        sums.clear();
        int32_t row = entry_at(shape.rows, of.index[begin]);
        for (int32_t pixel = begin; pixel < end; ++pixel) {
            const int32_t next = entry_at(shape.rows, of.index[pixel]);
            if (next != row) {
                sums.add_to(of.dentries + row * 2 * channels + channel, channels);
                sums.clear();
                row = next;
            }
            sums.add(gradient_at<T, V>(of, pixel, source_of(shape, pixel), row, channel));
        }
        sums.add_to(of.dentries + row * 2 * channels + channel, channels);
    });
}

// A run: neighbours in the sorted index that share a row of entries, cut at the borders of a chunk.
struct Run {
    bool begins, ends;  // whether no place of the run's row lies before the chunk, and none after the chunk
};

__host__ __device__ inline Run run_at(const int32_t* sorted, int32_t rows, int32_t pixels, int32_t begin, int32_t end,
                                      int32_t chunk_begin, int32_t chunk_end) {
    const int32_t row = sorted_row(sorted, rows, begin);
    return {begin > chunk_begin || begin == 0 || sorted_row(sorted, rows, begin - 1) != row,
            end < chunk_end || end == pixels || sorted_row(sorted, rows, end) != row};
}

// partials: float [chunks][2][2][C]. For each chunk first the sums of the run that began in an earlier chunk, then the
// sums of the run that goes on in the next chunk.
template <typename T, int V>
__device__ __forceinline__ void codebook_gradient_sorted(const CodebookBackward<T>& of, const int32_t* sorted,
                                                         const int64_t* order, float* partials) {
    const ModulateShape& shape = of.shape;
    const int32_t pixels = shape.n * shape.height * shape.width;
    const int64_t channels = shape.channels;
    for_each_chunk<V>(shape, [&](int32_t chunk, int32_t chunk_begin, int32_t chunk_end, int32_t channel) {
        for (int32_t begin = chunk_begin, end = begin; begin < chunk_end; begin = end) {
            const int32_t row = sorted_row(sorted, shape.rows, begin);
            EntrySums<V> sums;
            sums.clear();
            for (; end < chunk_end && sorted_row(sorted, shape.rows, end) == row; ++end) {
                const auto pixel = static_cast<int32_t>(order[end]);
                sums.add(gradient_at<T, V>(of, pixel, source_of(shape, pixel), row, channel));
            }
            const Run run = run_at(sorted, shape.rows, pixels, begin, end, chunk_begin, chunk_end);
            float* target = of.dentries + row * 2 * channels;
            if (!run.begins || !run.ends) target = partials + (2 * chunk + (run.begins ? 1 : 0)) * 2 * channels;
            sums.store_to(target + channel, channels);
        }
    });
}

// One past the last place of the row at `begin`.
__host__ __device__ inline int32_t row_end(const int32_t* sorted, int32_t rows, int32_t pixels, int32_t begin) {
    const int32_t row = sorted_row(sorted, rows, begin);
    int32_t low = begin + 1, high = pixels;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (sorted_row(sorted, rows, middle) == row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Adds up the partial sums of runs that cross chunks; the block of the chunk where a run begins adds the whole run. A
// block has 32 threads along the 2 C numbers of an entry and 8 along the chunks.
__device__ __forceinline__ void codebook_gradient_join(const int32_t* sorted, const float* partials, float* dentries,
                                                       int32_t pixels, int32_t rows, int32_t channels) {
    __shared__ float sums[8][32];
    const int32_t chunks = (pixels + kChunk - 1) / kChunk;
    const int64_t length = 2 * static_cast<int64_t>(channels);
    for (int32_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const int32_t chunk_end = min(pixels, (chunk + 1) * kChunk);
        const int32_t row = sorted_row(sorted, rows, chunk_end - 1);
        if (chunk_end == pixels || sorted_row(sorted, rows, chunk_end) != row) continue;
        const bool begins = chunk == 0 || sorted_row(sorted, rows, chunk * kChunk - 1) != row;
        if (!begins) continue;
        const int32_t last = (row_end(sorted, rows, pixels, chunk_end - 1) - 1) / kChunk;
        for (int64_t first = 0; first < length; first += 32) {
            const int64_t at = first + threadIdx.x;
            float sum = 0;
            for (int32_t other = chunk + threadIdx.y; at < length && other <= last; other += 8)
                sum += partials[(2 * static_cast<int64_t>(other) + (other == chunk ? 1 : 0)) * length + at];
            sums[threadIdx.y][threadIdx.x] = sum;
            __syncthreads();
            for (int i = 1; threadIdx.y == 0 && i < 8; ++i) sum += sums[i][threadIdx.x];
            if (threadIdx.y == 0 && at < length) dentries[row * length + at] = sum;
            __syncthreads();
        }
    }
}

}  // namespace spade

#endif
