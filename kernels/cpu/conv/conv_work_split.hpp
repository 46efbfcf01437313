// How convs are split: a work item is one block of 32 output channels of a group of rows, or a band of rows.
#ifndef SPADE_CONV_WORK_SPLIT_HPP
#define SPADE_CONV_WORK_SPLIT_HPP

#include <cstdint>

#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

constexpr int64_t conv_block = 32;  // channels

constexpr int64_t conv_blocks(int64_t channels) { return (channels + conv_block - 1) / conv_block; }

// Whether the output channels of all nine taps fit one block, so that conv_to_rgb.hpp computes the conv.
constexpr bool is_conv_to_rgb(int64_t out_channels, int64_t kernel_size) {
    return kernel_size == 3 && 9 * out_channels <= conv_block;
}

// The split of a conv. The rows of the rectangle are numbered through all images. Work items are numbered block *
// groups + group, or group * blocks + block in a 1x1 conv.
struct ConvSplit {
    int64_t rows;    // rows of one group; the last group may have fewer
    int64_t groups;  // groups of a block
};

// Makes about 32 work items or more, enough for tens of threads, each as large as possible, so that the weights that an
// item reads serve many pixels.
[[maybe_unused]] ConvSplit conv_split(const spade_conv& args) {
    constexpr int64_t pixels = 256, wanted = 32, few_rows = 8;
    if (is_empty(args)) return {1, 0};
    const int64_t all = args.n * (args.bottom - args.top), blocks = conv_blocks(args.out_channels);
    const int64_t width = args.right - args.left;
    int64_t rows = pixels / width > 2 ? pixels / width : 2;  // an AMX tile covers two lines
    if (is_conv_to_rgb(args.out_channels, args.kernel_size) && rows < few_rows) rows = few_rows;
    while (rows > 1 && rows != few_rows && blocks * ((all + rows - 1) / rows) < wanted) rows = (rows + 1) / 2;
    return {rows, (all + rows - 1) / rows};
}

// The columns of x that a conv's rectangle reads.
[[maybe_unused]] Span read_columns(const spade_conv& conv, const spade_modulate& modulate) {
    const int64_t border = conv.kernel_size / 2;
    const int64_t first = conv.left > border ? conv.left - border : 0;
    const int64_t end = conv.right + border < conv.width ? conv.right + border : conv.width;
    return modulated_columns(modulate, first, end);
}

// The split of a modulated conv into bands of the rectangle's rows, each of one image. The modulated rows of a band and
// the rows above and below stay in the second-level cache.
struct ConvBands {
    int64_t rows;      // rows of one band; the last band of an image may have fewer
    int64_t of_image;  // bands of an image
};

// Elements of a line of x, all blocks.
constexpr int64_t conv_line(const spade_conv& args) {
    return (args.width + 2) * conv_blocks(args.in_channels) * conv_block;
}

[[maybe_unused]] ConvBands conv_bands(const spade_modulated_conv& args, int64_t element_bytes) {
    constexpr int64_t cached_bytes = 896 << 10, most = 16, wanted = 8;
    const spade_conv& conv = args.conv;
    const int64_t line = conv_line(conv) * element_bytes;
    const int64_t shortcut = args.has_shortcut != 0 ? conv_line(args.shortcut) * element_bytes : 0;
    int64_t rows = (cached_bytes - 2 * line) / (line + shortcut);
    const int64_t height = conv.bottom - conv.top, even = conv.n * height / wanted;
    rows = rows < even ? rows : even;
    rows = rows < most ? rows : most;
    rows = rows < 2 ? 2 : rows / 2 * 2;  // even: a residual of half the size serves two rows
    return {rows, is_empty(conv) ? 0 : (height + rows - 1) / rows};
}

// Band height for amx. Scratch holds this band's lines plus the lines being prepared for the next band. Bands are equal
// if that costs few rows, so that threads get equal work.
[[maybe_unused]] ConvBands amx_bands(const spade_modulated_conv& args) {
    constexpr int64_t cached_bytes = 1 << 20, most = 16, wanted = 8;
    const spade_conv& conv = args.conv;
    const int64_t line = conv_line(conv) * 2, shortcut = args.has_shortcut != 0 ? conv_line(args.shortcut) * 2 : 0;
    int64_t rows = (cached_bytes - 3 * line) / (2 * (line + shortcut));
    const int64_t height = conv.bottom - conv.top, even = conv.n * height / wanted;
    rows = rows < even ? rows : even;
    rows = rows < most ? rows : most;
    rows = rows < 2 ? 2 : rows / 2 * 2;
    while (rows > 4 && height % rows != 0) rows -= 2;
    return {rows, is_empty(conv) ? 0 : (height + rows - 1) / rows};
}

}  // namespace
}  // namespace spade

#endif
