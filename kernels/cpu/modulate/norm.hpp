// Instance-norm statistics: mean and 1 / sqrt(variance + epsilon) of every channel of every image.
//
// Each line takes two passes (its mean, then its squared deviations) while it is in the first-level cache, so x is read
// once from memory. Lines are combined in float64 by the update formula of Chan, Golub and LeVeque (Algorithms for
// computing the sample variance, 1983). One work item computes a whole channel, so the order of the sums is fixed.
#ifndef SPADE_NORM_HPP
#define SPADE_NORM_HPP

#include <cmath>
#include <cstdint>

#include "spade_kernels.h"

namespace spade {
namespace {

// Sums term(block of 32 channels) over a line. Even and odd columns have running sums of their own, because an addition
// has a longer latency than a load.
template <typename V, typename Term>
inline void line_sum(const typename V::Element* x, int64_t width, typename V::F* sum, Term term) {
    constexpr int vectors = 32 / V::width;
    typename V::F even[vectors], odd[vectors], block[vectors];
    for (int i = 0; i < vectors; ++i) even[i] = odd[i] = V::zero();
    for (int64_t column = 0; column + 1 < width; column += 2) {
        V::load_block(x + column * 32, block);
        for (int i = 0; i < vectors; ++i) even[i] = term(block[i], i, even[i]);
        V::load_block(x + column * 32 + 32, block);
        for (int i = 0; i < vectors; ++i) odd[i] = term(block[i], i, odd[i]);
    }
    if (width % 2 != 0) {
        V::load_block(x + (width - 1) * 32, block);
        for (int i = 0; i < vectors; ++i) even[i] = term(block[i], i, even[i]);
    }
    for (int i = 0; i < vectors; ++i) sum[i] = V::add(even[i], odd[i]);
}

// Writes the mean and the sum of squared deviations of the 32 channels of one line, in the ISA's order of channels.
template <typename V>
inline void line_moments(const typename V::Element* x, int64_t width, float* mean, float* squares) {
    using F = typename V::F;
    constexpr int vectors = 32 / V::width;
    F centre[vectors], deviations[vectors];
    line_sum<V>(x, width, centre, [](F value, int, F sum) { return V::add(sum, value); });
    for (int i = 0; i < vectors; ++i) centre[i] = V::mul(centre[i], V::set(1.0f / static_cast<float>(width)));
    line_sum<V>(x, width, deviations, [&centre](F value, int i, F sum) {
        const F deviation = V::sub(value, centre[i]);
        return V::fma(deviation, deviation, sum);
    });
    for (int i = 0; i < vectors; ++i) {
        V::store_f32(mean + i * V::width, centre[i]);
        V::store_f32(squares + i * V::width, deviations[i]);
    }
}

// A work item is one block of channels of one image.
template <typename V>
void norm_item(const spade_norm& args, int64_t item) {
    const int64_t n = item / args.blocks, block = item % args.blocks, line_elements = args.width * 32;
    const auto* x = static_cast<const typename V::Element*>(args.x);
    alignas(64) float line_mean[32], line_squares[32];
    double mean[32] = {}, squares[32] = {};
    for (int64_t line = 0; line < args.height; ++line) {
        line_moments<V>(x + ((n * args.height + line) * args.blocks + block) * line_elements, args.width, line_mean,
                        line_squares);
        const double share = 1.0 / static_cast<double>(line + 1),
                     joint = static_cast<double>(line * args.width) * share;
        for (int c = 0; c < 32; ++c) {
            const double step = static_cast<double>(line_mean[c]) - mean[c];
            squares[c] += static_cast<double>(line_squares[c]) + step * step * joint;
            mean[c] += step * share;
        }
    }
    const double pixels = static_cast<double>(args.height * args.width);
    for (int c = 0; c < 32; ++c) {
        args.mean[item * 32 + V::lane(c)] = static_cast<float>(mean[c]);
        args.rstd[item * 32 + V::lane(c)] = static_cast<float>(1.0 / std::sqrt(squares[c] / pixels + args.epsilon));
    }
}

template <typename V>
void norm(const spade_norm& args, int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) norm_item<V>(args, item);
}

}  // namespace
}  // namespace spade

#endif
