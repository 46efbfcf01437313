// The running sums of a reduction in norm.hpp: of statistics (Moments), and of the gradient through them
// (GradientSums). Each holds V lanes, adds one item or four, and merges with the sums of other threads.
#ifndef SPADE_CUDA_NORM_SUMS_HPP
#define SPADE_CUDA_NORM_SUMS_HPP

#include <cuda_runtime.h>

namespace spade {

// Welford's running mean (first) and sum of squared deviations (second) of V lanes with equal counts.
template <int V>
struct Moments {
    static constexpr bool kTwo = false;  // reads x alone
    float count, first[V], second[V];

    __device__ void clear() {
        count = 0;
        for (int i = 0; i < V; ++i) first[i] = second[i] = 0;
    }

    __device__ void add(const float (&x)[V], const float (&)[V]) {
        count += 1;
        const float share = 1 / count;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float delta = x[i] - first[i];
            first[i] = fmaf(delta, share, first[i]);
            second[i] = fmaf(delta, x[i] - first[i], second[i]);
        }
    }

    // Adds four items: their own mean and squared deviations, merged as merge_lane does.
    __device__ void add_four(const float (&x)[4][V], const float (&)[4][V]) {
        const float before = count;
        count += 4;
        const float share = 4 / count, weight = before * share;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float mean = 0.25f * ((x[0][i] + x[1][i]) + (x[2][i] + x[3][i]));
            float squares = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) squares = fmaf(x[j][i] - mean, x[j][i] - mean, squares);
            const float delta = mean - first[i];
            first[i] = fmaf(delta, share, first[i]);
            second[i] += fmaf(delta * delta, weight, squares);
        }
    }

    __device__ static void merge_lane(float& count, float& mean, float& squares, float other_count, float other_mean,
                                      float other_squares) {
        if (other_count == 0) return;
        const float total = count + other_count, delta = other_mean - mean, share = other_count / total;
        mean = fmaf(delta, share, mean);
        squares += other_squares + delta * delta * count * share;
        count = total;
    }

    __device__ static void finish(float count, float epsilon, float& mean, float& squares) {
        (void)mean;
        squares = rsqrtf(squares / count + epsilon);
    }
};

// Sums of g (first) and of g xn (second).
template <int V>
struct GradientSums {
    static constexpr bool kTwo = true;  // reads x and g
    float count, first[V], second[V];

    __device__ void clear() {
        count = 0;
        for (int i = 0; i < V; ++i) first[i] = second[i] = 0;
    }

    __device__ void add(const float (&xn)[V], const float (&g)[V]) {
        count += 1;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            first[i] += g[i];
            second[i] = fmaf(g[i], xn[i], second[i]);
        }
    }

    __device__ void add_four(const float (&xn)[4][V], const float (&g)[4][V]) {
#pragma unroll
        for (int j = 0; j < 4; ++j) add(xn[j], g[j]);
    }

    __device__ static void merge_lane(float& count, float& sum, float& product, float other_count, float other_sum,
                                      float other_product) {
        count += other_count;
        sum += other_sum;
        product += other_product;
    }

    __device__ static void finish(float count, float, float& sum, float& product) {
        sum /= count;
        product /= count;
    }
};

template <typename Sums, int V>
__device__ void merge(Sums& into, const Sums& from) {
    float count = into.count;
    for (int i = 0; i < V; ++i) {
        count = into.count;
        Sums::merge_lane(count, into.first[i], into.second[i], from.count, from.first[i], from.second[i]);
    }
    into.count = count;
}

}  // namespace spade

#endif
