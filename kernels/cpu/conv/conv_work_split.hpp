// How a conv's work is cut: a unit is one block of 32 output channels of some rows.
#ifndef SPADE_CONV_UNITS_HPP
#define SPADE_CONV_UNITS_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {
namespace {

constexpr int64_t conv_block = 32;  // channels

constexpr int64_t conv_blocks(int64_t channels) { return (channels + conv_block - 1) / conv_block; }

// So few output channels that those of all taps fit one block: see conv_to_rgb.hpp.
constexpr bool conv_is_few(int64_t out_channels, int64_t kernel_size) {
    return kernel_size == 3 && 9 * out_channels <= conv_block;
}

// Units are numbered block * groups + group or, of a 1x1 conv, group * blocks + block; the rows of all images count
// through.
struct ConvUnits {
    int64_t rows;    // of one group; the last may have fewer
    int64_t groups;  // per block
};

// Enough units for some tens of threads, and below that large ones, so that each reads its weights for many pixels.
[[maybe_unused]] ConvUnits conv_units(const spade_conv& args) {
    constexpr int64_t pixels = 256, wanted = 32, few_rows = 8;
    const int64_t all = args.n * args.height, blocks = conv_blocks(args.out_channels);
    int64_t rows = pixels / args.width > 2 ? pixels / args.width : 2;  // tiles of amx take two lines
    if (conv_is_few(args.out_channels, args.kernel_size) && rows < few_rows) rows = few_rows;
    while (rows > 1 && rows != few_rows && blocks * ((all + rows - 1) / rows) < wanted) rows = (rows + 1) / 2;
    return {rows, (all + rows - 1) / rows};
}

// A modulated conv is cut into bands of rows, each of one image: the modulated rows of a band, with those above and
// below, stay in the second-level cache.
struct ConvBands {
    int64_t rows;
    int64_t of_image;
};

constexpr int64_t conv_line(const spade_conv& args) {  // elements of x
    return (args.width + 2) * conv_blocks(args.in_channels) * conv_block;
}

[[maybe_unused]] ConvBands conv_bands(const spade_modulated_conv& args, int64_t element_bytes) {
    constexpr int64_t cached_bytes = 896 << 10, most = 16, wanted = 8;
    const spade_conv& conv = args.conv;
    const int64_t line = conv_line(conv) * element_bytes;
    const int64_t shortcut = args.has_shortcut != 0 ? conv_line(args.shortcut) * element_bytes : 0;
    int64_t rows = (cached_bytes - 2 * line) / (line + shortcut);
    const int64_t even = conv.n * conv.height / wanted;
    rows = rows < even ? rows : even;
    rows = rows < most ? rows : most;
    rows = rows < 2 ? 2 : rows / 2 * 2;  // residuals of half the size and tiles of amx take two rows
    return {rows, (conv.height + rows - 1) / rows};
}

// Those of amx, whose scratch holds a ring of modulated lines: what a band reads, and what the next needs besides. Of
// equal size where that costs few rows, so that threads get equal parts.
[[maybe_unused]] ConvBands amx_bands(const spade_modulated_conv& args) {
    constexpr int64_t cached_bytes = 1 << 20, most = 16, wanted = 8;
    const spade_conv& conv = args.conv;
    const int64_t line = conv_line(conv) * 2, shortcut = args.has_shortcut != 0 ? conv_line(args.shortcut) * 2 : 0;
    int64_t rows = (cached_bytes - 3 * line) / (2 * (line + shortcut));
    const int64_t even = conv.n * conv.height / wanted;
    rows = rows < even ? rows : even;
    rows = rows < most ? rows : most;
    rows = rows < 2 ? 2 : rows / 2 * 2;
    while (rows > 4 && conv.height % rows != 0) rows -= 2;
    return {rows, (conv.height + rows - 1) / rows};
}

}  // namespace
}  // namespace spade

#endif
