// 3x3 convolution to at most three channels: the output channels of all nine taps share one block.
//
//   q[r, c, tap, co] = sum over ci block, ci of x[r, c, ci] * w[co, ci, tap]      a 1x1 conv to 9 * out channels
//   y[r, c, co]      = bias[co] + sum over taps of q[r + ky, c + kx, tap, co] (+ residual)
//
// Layout: a ring of three rows of q, in strips of columns that stay in the first-level cache. The channels of one tap
// never cross two panels.
//
// Operations: a conv tap by tap would use 3 lanes of each register; this way nearly all lanes are used. Strips overlap,
// so the rows and columns around a strip are multiplied twice.
#ifndef SPADE_CONV_TO_RGB_HPP
#define SPADE_CONV_TO_RGB_HPP

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/conv/conv_kernel.hpp"

namespace spade {
namespace {

// Layout of one row of q in a strip: [panel][pixels][panel's channels].
template <typename V>
struct ToRgbRow {
    static constexpr int64_t panel = Conv<V>::panel, panels = Conv<V>::panels_of_block;
    static constexpr int64_t strip = 62;  // columns of y; with one column on either side, two pairs of AMX tiles
    static constexpr int64_t stride = (strip + 2) * panel;
    static constexpr int64_t elements = panels * stride;
};

// The 1x1 conv to the channels of all taps, on vectors; conv_to_rgb_amx.hpp has the same on tiles.
template <typename V>
struct ToRgbProducts {
    using E = typename V::Element;
    using C = Conv<V>;

    static int64_t packed_elements(int64_t in_channels) { return C::packed_elements(conv_block, in_channels, 1); }

    static void pack(const float* weight, int64_t in_channels, E* to) {
        C::pack(weight, conv_block, in_channels, 1, to);
    }

    static void multiply(const spade_conv& args, const E* x, int64_t pixels, float* q) {
        static constexpr float zero[C::panel] = {};
        const typename C::Input in(args.in_channels, args.width, 1);
        for (int64_t p = 0; p < C::panels_of_block; ++p) {
            typename C::Chunk chunk{0, in.blocks, static_cast<const E*>(args.weight), true, false};
            chunk.weight += p * C::panel_elements(args.in_channels, 1);
            typename C::Place place{};
            place.ky_end = 1;
            place.x = x;
            place.sums = q + p * ToRgbRow<V>::stride;
            place.bias = zero;
            C::row(in, chunk, place, pixels, false);
        }
    }
};

template <typename V, typename Products = ToRgbProducts<V>>
struct ConvToRgb {
    using E = typename V::Element;
    using Input = typename V::Input;
    using Row = ToRgbRow<V>;
    static constexpr int64_t panel = Row::panel, strip = Row::strip, q_row = Row::stride;

    // Returns where the first channel of a tap lies among the 32 channels of q.
    static int64_t lane(int64_t tap, int64_t out_channels) {
        const int64_t taps_of_panel = panel / out_channels;
        return tap / taps_of_panel * panel + tap % taps_of_panel * out_channels;
    }

    static int64_t packed_elements(int64_t in_channels) { return Products::packed_elements(in_channels); }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, Input* to) {
        std::vector<float> of_taps(static_cast<size_t>(conv_block * in_channels));  // [32][in channels]
        for (int64_t tap = 0; tap < 9; ++tap)
            for (int64_t co = 0; co < out_channels; ++co)
                for (int64_t ci = 0; ci < in_channels; ++ci)
                    of_taps[static_cast<size_t>((lane(tap, out_channels) + co) * in_channels + ci)] =
                        weight[(co * in_channels + ci) * 9 + tap];
        Products::pack(of_taps.data(), in_channels, to);
    }

    // Computes one row of a strip of y from three rows of q. Lanes past the output channels hold sums of other taps and
    // are cleared.
    static void add_taps(const spade_conv& args, const float* const rows[3], int64_t pixels, const E* residual,
                         int64_t column, E* y) {
        const float* taps[9];
        for (int64_t tap = 0; tap < 9; ++tap) {
            const int64_t at = lane(tap, args.out_channels);
            taps[tap] = rows[tap / 3] + at / panel * q_row + tap % 3 * panel + at % panel;
        }
        const __m128i used =
            _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(args.out_channels)), _mm_set_epi32(3, 2, 1, 0));
        const __m128 bias = _mm_loadu_ps(args.bias);
        for (int64_t p = 0; p < pixels; ++p, y += conv_block) {
            __m128 sum = bias;
            for (const float* tap : taps) sum = _mm_add_ps(sum, _mm_loadu_ps(tap + p * panel));
            sum = _mm_and_ps(sum, _mm_castsi128_ps(used));
            for (int64_t c = 0; c < conv_block; c += V::width) {
                typename V::F out = c == 0 ? V::widen(sum) : V::zero();
                if (residual != nullptr)
                    out = V::add(out, V::load(residual + ((column + p) >> args.residual_shift) * conv_block + c));
                V::store(y + c, out);
            }
        }
    }

    // Computes rows row .. row_end - 1 of one image; lines(r, 0) is line r of the image's padded map.
    template <typename Lines>
    static void image_rows(const spade_conv& args, const Lines& lines, int64_t image, int64_t row, int64_t row_end) {
        const int64_t shift = args.residual_shift;
        alignas(64) float q[3][Row::elements];
        for (int64_t column = args.left; column < args.right; column += strip) {
            const int64_t pixels = column + strip < args.right ? strip : args.right - column;
            for (int64_t r = row; r < row_end + 2; ++r) {
                Products::multiply(args, lines(r, 0) + column * conv_block, pixels + 2, q[r % 3]);
                if (r < row + 2) continue;
                const float* const rows[3] = {q[(r - 2) % 3], q[(r - 1) % 3], q[r % 3]};
                const int64_t at = image * args.height + r - 2;
                const E* residual = static_cast<const E*>(args.residual);
                if (residual != nullptr)
                    residual +=
                        (image * (args.height >> shift) + ((r - 2) >> shift)) * (args.width >> shift) * conv_block;
                E* y = static_cast<E*>(args.y) + (at * args.width + column) * conv_block;
                add_taps(args, rows, pixels, residual, column, y);
            }
        }
    }

    // Computes some rows, which are numbered through all images.
    static void area(const spade_conv& args, int64_t row, int64_t row_end) {
        while (row < row_end) {
            const int64_t image = row / args.height, first = image * args.height;
            const int64_t last = first + args.height < row_end ? first + args.height : row_end;
            const Input* x = static_cast<const Input*>(args.x) + image * (args.height + 2) * conv_line(args);
            const auto lines = [&](int64_t r, int64_t ky) { return x + (r + ky) * conv_line(args); };
            image_rows(args, lines, image, row - first, last - first);
            row = last;
        }
    }
};

}  // namespace
}  // namespace spade

#endif
