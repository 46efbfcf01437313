// SPADE's modulation with gamma and beta of every pixel, as every SPADE model computes it, forward and backward.
//
//   y = act(xn * (1 + gamma) + beta),   xn = (x - mean) rstd
//   d = dy act'(y),   dbeta = d,   dgamma = d xn,   g = d (1 + gamma);   dx from g, see norm.hpp
//
// Layout: NHWC or NCHW; x, y and their gradients contiguous; gamma and beta may be the halves of one map (a stride).
//
// Bytes per element, E = sizeof(T): forward reads 3 E and writes E. Backward reads 4 E and writes 3 E; the gradient
// through statistics that depend on x (norm.hpp) reads 4 E more and writes E.
// Operations: forward 5 and a select, backward 9.
//
// Fused: normalisation, modulation and activation. The plane kernel also computes the statistics of instance norm: it
// keeps a plane in shared memory, takes the mean, then the squared deviations from the mean (two passes, so nothing
// cancels), and modulates. It reads x once.
#ifndef SPADE_CUDA_MODULATE_DENSE_HPP
#define SPADE_CUDA_MODULATE_DENSE_HPP

#include "cuda/norm/norm.hpp"

namespace spade {

// ---- Statistics given ----

template <typename T>
struct DensePointers {
    const T *x, *gamma, *beta;
    const float *mean, *rstd;  // null: no normalisation
    T* out;
};

template <typename T, int V, bool Nhwc>
__device__ __forceinline__ void modulate_dense(const DensePointers<T>& of, const ElementwiseShape& shape, float slope) {
    StatisticsCache<V, Nhwc> known;
    for_each_vector<V, Nhwc>(shape, [&](const ElementPlace& at, int32_t, int32_t) {
        const Vector<T, V> values = load<T, V>(of.x + at.map);
        const Vector<T, V> gamma = load<T, V>(of.gamma + at.modulation), beta = load<T, V>(of.beta + at.modulation);
        known.move(of.mean, of.rstd, at.statistics);
        float result[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float xn = (to_float(values.values[i]) - known.mean[Nhwc ? i : 0]) * known.rstd[Nhwc ? i : 0];
            const float value = fmaf(xn, 1 + to_float(gamma.values[i]), to_float(beta.values[i]));
            result[i] = value > 0 ? value : value * slope;
        }
        store<T, V>(of.out + at.map, result);
    });
}

template <typename T>
struct DenseBackwardPointers {
    const T *x, *gamma, *beta, *dy;
    const float *mean, *rstd;
    T *dx, *dgamma, *dbeta;  // dx: g, multiplied by rstd if `scaled`
};

template <typename T, int V, bool Nhwc>
__device__ __forceinline__ void modulate_dense_backward(const DenseBackwardPointers<T>& of,
                                                        const ElementwiseShape& shape, int64_t gradient_stride,
                                                        float slope, bool scaled) {
    ElementwiseShape gradients = shape;
    gradients.modulation_stride = gradient_stride;
    StatisticsCache<V, Nhwc> known;
    for_each_vector<V, Nhwc>(shape, [&](const ElementPlace& at, int32_t row, int32_t element) {
        known.move(of.mean, of.rstd, at.statistics);
        const Vector<T, V> values = load<T, V>(of.x + at.map), dy = load<T, V>(of.dy + at.map);
        const Vector<T, V> gamma = load<T, V>(of.gamma + at.modulation), beta = load<T, V>(of.beta + at.modulation);
        float g[V], dgamma[V], dbeta[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float scale = known.rstd[Nhwc ? i : 0], factor = 1 + to_float(gamma.values[i]);
            const float xn = (to_float(values.values[i]) - known.mean[Nhwc ? i : 0]) * scale;
            const float value = fmaf(xn, factor, to_float(beta.values[i]));
            const float d = to_float(dy.values[i]) * (value > 0 ? 1.0f : slope);
            dbeta[i] = d;
            dgamma[i] = d * xn;
            g[i] = d * factor * (scaled ? scale : 1.0f);
        }
        const int64_t gradient = place_at(gradients, row, element).modulation;
        store<T, V>(of.dgamma + gradient, dgamma);
        store<T, V>(of.dbeta + gradient, dbeta);
        store<T, V>(of.dx + at.map, g);
    });
}

// ---- Instance norm, a plane in shared memory ----

constexpr int kPlaneBytes = 40 << 10;   // with the sums, below 48 KB: more would need permission
constexpr int kPlaneChannelBytes = 32;  // NHWC: a block takes one memory sector of each pixel

// The number of channels that a block takes of an NHWC map.
template <typename T>
constexpr int kPlaneChannels = kPlaneChannelBytes / static_cast<int>(sizeof(T));

__host__ __device__ inline bool plane_fits(int64_t pixels, int64_t element_bytes, bool nhwc) {
    return pixels <= kPlaneBytes / (nhwc ? kPlaneChannelBytes : element_bytes);
}

// Sums over the threads of a column and, with join_lanes, over the lanes. Every thread of the column gets the sum.
template <int V>
__device__ void sum_columns(float (&values)[V], float* shared, bool join_lanes) {
    const int columns = blockDim.x, column = threadIdx.x, row = threadIdx.y;
    float* own = shared + (row * columns + column) * V;
    __syncthreads();
    for (int i = 0; i < V; ++i) own[i] = values[i];
    for (int active = blockDim.y; active > 1;) {
        const int half = (active + 1) / 2;
        __syncthreads();
        if (row < active - half)
            for (int i = 0; i < V; ++i) own[i] += own[half * columns * V + i];
        active = half;
    }
    __syncthreads();
    for (int i = 0; i < V; ++i) values[i] = shared[column * V + i];
    if (!join_lanes) return;
    for (int i = 1; i < V; ++i) values[0] += values[i];
    for (int i = 1; i < V; ++i) values[i] = values[0];
}

template <typename T>
struct PlanePointers {
    const T *x, *gamma, *beta;
    float *mean, *rstd;  // [n][C], out
    T* out;
};

// The plane (NCHW) or the neighbouring channels (NHWC) that a block takes.
struct Plane {
    int32_t image, channel;  // channel: the first one
};

__host__ __device__ inline int32_t planes_across(const ElementwiseShape& shape, int32_t plane_channels) {
    return shape.nhwc ? (shape.channels + plane_channels - 1) / plane_channels : shape.channels;
}

__host__ __device__ inline Plane plane_at(const ElementwiseShape& shape, int32_t plane_channels, int32_t block) {
    const int32_t across = planes_across(shape, plane_channels), image = block / across;
    return {image, (block - image * across) * (shape.nhwc ? plane_channels : 1)};
}

template <typename T, int V, bool Nhwc>
__device__ __forceinline__ void modulate_plane(const PlanePointers<T>& of, const ElementwiseShape& shape, float slope,
                                               float epsilon, T* plane, float* sums) {
    const Plane at = plane_at(shape, kPlaneChannels<T>, blockIdx.x);
    const int32_t channel = at.channel + (Nhwc ? static_cast<int32_t>(threadIdx.x) * V : 0);
    const int32_t items = Nhwc ? shape.pixels : shape.pixels / V, columns = blockDim.x;
    const bool present = channel < shape.channels;
    const auto place = [&](int32_t item) {
        return Nhwc ? place_at(shape, at.image * shape.pixels + item, channel)
                    : place_at(shape, at.image * shape.channels + channel, item * V);
    };
    float centre[V] = {}, scale[V] = {};
#pragma unroll 4
    for (int32_t item = threadIdx.y; present && item < items; item += blockDim.y) {
        const Vector<T, V> values = load<T, V>(of.x + place(item).map);
        *reinterpret_cast<Vector<T, V>*>(plane + (item * columns + threadIdx.x) * V) = values;
#pragma unroll
        for (int i = 0; i < V; ++i) centre[i] += to_float(values.values[i]);
    }
    sum_columns<V>(centre, sums, !Nhwc);
    for (int i = 0; i < V; ++i) centre[i] /= static_cast<float>(shape.pixels);
    for (int32_t item = threadIdx.y; present && item < items; item += blockDim.y) {
        const Vector<T, V> values = load<T, V>(plane + (item * columns + threadIdx.x) * V);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float delta = to_float(values.values[i]) - centre[i];
            scale[i] = fmaf(delta, delta, scale[i]);
        }
    }
    sum_columns<V>(scale, sums, !Nhwc);
    for (int i = 0; i < V; ++i) scale[i] = rsqrtf(scale[i] / static_cast<float>(shape.pixels) + epsilon);
    if (!present) return;
    for (int i = 0; threadIdx.y == 0 && i < (Nhwc ? V : 1); ++i) {
        of.mean[static_cast<int64_t>(at.image) * shape.channels + channel + i] = centre[i];
        of.rstd[static_cast<int64_t>(at.image) * shape.channels + channel + i] = scale[i];
    }
    for (int32_t item = threadIdx.y; item < items; item += blockDim.y) {
        const ElementPlace to = place(item);
        const Vector<T, V> values = load<T, V>(plane + (item * columns + threadIdx.x) * V);
        const Vector<T, V> gamma = load<T, V>(of.gamma + to.modulation), beta = load<T, V>(of.beta + to.modulation);
        float result[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float xn = (to_float(values.values[i]) - centre[i]) * scale[i];
            const float value = fmaf(xn, 1 + to_float(gamma.values[i]), to_float(beta.values[i]));
            result[i] = value > 0 ? value : value * slope;
        }
        store<T, V>(of.out + to.map, result);
    }
}

}  // namespace spade

#endif
