// The products of conv_to_rgb.hpp on AMX tiles: 16 pixels x the 32 channels of q are two tiles, stored in q's layout.
#ifndef SPADE_CONV_TO_RGB_AMX_HPP
#define SPADE_CONV_TO_RGB_AMX_HPP

#include <cstdint>

#include "cpu/conv/conv_amx.hpp"
#include "cpu/conv/conv_to_rgb.hpp"
#include "cpu/isa/amx_tiles.hpp"

namespace spade {
namespace {

struct ToRgbProductsAmx {
    using Row = ToRgbRow<Amx>;

    static int64_t packed_elements(int64_t in_channels) { return ConvAmx::packed_elements(conv_block, in_channels, 1); }

    static void pack(const float* weight, int64_t in_channels, bf16* to) {
        ConvAmx::pack(weight, conv_block, in_channels, 1, to);
    }

    // Two runs at a time. The last run starts early enough to be full and computes some pixels again.
    static void multiply(const spade_conv& args, const bf16* x, int64_t pixels, float* q) {
        const int64_t run = pixels < Tiles::amx_pixels ? pixels : Tiles::amx_pixels;
        const Tiles tiles(run);
        for (int64_t column = 0; column < pixels; column += 2 * run) {
            const int64_t first = column + run < pixels ? column : pixels - run;
            const int64_t second = column + 2 * run < pixels ? column + run : pixels - run;
            two_runs(args, x, first, second, q);
        }
        amx_publish(q);
    }

    static void two_runs(const spade_conv& args, const bf16* x, int64_t first, int64_t second, float* q) {
        constexpr int64_t stride = Row::panel * sizeof(float);
        constexpr int64_t second_half = 16 / Row::panel * Row::stride + 16 % Row::panel;  // offset of channels 16 .. 31
        const int64_t block_stride = (args.width + 2) * conv_block;
        const auto* weight = static_cast<const bf16*>(args.weight);
        amx_publish(x);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t block = 0; block < conv_blocks(args.in_channels); ++block, x += block_stride, weight += amx_step)
            amx_products<false>(x + first * conv_block, x + second * conv_block, weight);
        _tile_stored(0, q + first * Row::panel, stride);
        _tile_stored(1, q + second_half + first * Row::panel, stride);
        _tile_stored(2, q + second * Row::panel, stride);
        _tile_stored(3, q + second_half + second * Row::panel, stride);
    }
};

using ConvToRgbAmx = ConvToRgb<Amx, ToRgbProductsAmx>;

}  // namespace
}  // namespace spade

#endif
