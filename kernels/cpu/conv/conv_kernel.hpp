// 3x3 and 1x1 convolution as a direct product on maps in blocks of 32 channels.
//
//   y[n, r, c, co] = bias[co] + sum over ci block, ky, kx, ci of x[n, r + ky, c + kx, ci] * w[co, ci, ky, kx]
//                    (+ residual[n, r >> s, c >> s, co])
//
// Every output sums in this one order, so the split of the work changes no bit.
//
// Layout: the 32 channels of a pixel are contiguous and the next pixel follows, so the pixels of a tile are one
// contiguous run for every tap. Weights are packed in panels of two registers of output channels, in the order above.
//
// Tile: up to max_pixels pixels x two registers of output channels. All sums stay in registers; one step loads two
// weights and broadcasts one input (or a pair of bf16) per pixel. The other registers hold the weights and a broadcast.
//
// Blocking: the rows of several work items pass under one chunk of the panel, which stays in cache; between chunks the
// sums wait in float32. A panel therefore comes from memory once per pass, for any number of images. A tile prefetches
// the next row of taps, because every row of taps starts a new stream of addresses.
//
// Fused: bias, residual, its upsampling, rounding.
#ifndef SPADE_CONV_KERNEL_HPP
#define SPADE_CONV_KERNEL_HPP

#include <cstdint>
#include <utility>

#include "cpu/conv/conv_work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

template <typename V>
struct Conv {
    using E = typename V::Element;
    using F = typename V::F;

    static constexpr int max_pixels = V::registers == 32 ? 14 : 6;
    static constexpr int panel = 2 * V::width;  // output channels
    static constexpr int64_t panels_of_block = conv_block / panel;

    // Bytes of the weights of a chunk. Tiles of 16 registers are small and read the weights so often that the chunk
    // must fit the first-level cache; tiles of 32 registers can read the chunk from the second-level cache.
    static constexpr int64_t chunk_bytes = V::registers == 32 ? 80 << 10 : 20 << 10;
    static constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(E));  // elements of a cache line
    // Pixels of a pass: their sums and their inputs under one chunk stay in the second-level cache.
    static constexpr int64_t pass_pixels = 512;

    // ---- Packed weights: [panel][ci block][ky][kx][ci / depth][panel][depth] ----

    static int64_t depths(int64_t channels) { return (channels + V::depth - 1) / V::depth; }

    static int64_t depths_of_block(int64_t in_channels, int64_t block) {
        const int64_t rest = in_channels - block * conv_block;
        return depths(rest < conv_block ? rest : conv_block);
    }

    static int64_t panel_elements(int64_t in_channels, int64_t kernel_size) {
        return kernel_size * kernel_size * depths(in_channels) * V::depth * panel;
    }

    static int64_t packed_elements(int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
        return (out_channels + panel - 1) / panel * panel_elements(in_channels, kernel_size);
    }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size, E* to) {
        const int64_t taps = kernel_size * kernel_size;
        for (int64_t co0 = 0; co0 < out_channels; co0 += panel)
            for (int64_t ci0 = 0; ci0 < in_channels; ci0 += conv_block)
                for (int64_t tap = 0; tap < taps; ++tap)
                    for (int64_t ci = ci0; ci < ci0 + conv_block && ci < in_channels; ci += V::depth)
                        for (int64_t co = co0; co < co0 + panel; ++co)
                            for (int64_t d = ci; d < ci + V::depth; ++d) {
                                const bool used = co < out_channels && d < in_channels;
                                *to++ = V::element(used ? weight[(co * in_channels + d) * taps + tap] : 0.0f);
                            }
    }

    // ---- One tile ----

    // The shape of x.
    struct Input {
        int64_t channels, blocks, kernel_size;
        int64_t block_stride, row_stride;  // elements of the padded map
        Input(int64_t in_channels, int64_t width, int64_t k)
            : channels(in_channels),
              blocks(conv_blocks(in_channels)),
              kernel_size(k),
              block_stride((width + 2) * conv_block),
              row_stride(blocks * block_stride) {}
    };

    // Rows of taps first .. last - 1, numbered block * k + ky, and their weights in one panel.
    struct Chunk {
        int64_t first, last;
        const E* weight;
        bool opens;   // first chunk: the sums start from the bias
        bool closes;  // last chunk: the sums are rounded and stored in y
    };

    // Where a tile of pixels lies.
    struct Place {
        int64_t ky, ky_end;  // rows of taps inside the image; the other rows of taps read zeros and are skipped
        const E* x;          // first pixel at tap (0, 0), in block 0
        float* sums;         // [pixels][panel], between chunks
        const float* bias;   // [panel]
        const E* residual;   // column 0 of the residual's row, at the panel's channels; or null
        int64_t column;      // column of the first pixel
        int64_t shift;       // the residual is read at column >> shift
        E* y;                // first pixel, at the panel's channels; null where no chunk closes
    };

    static const E* row_of_taps(const Input& in, const E* x, int64_t at) {
        return x + at % in.kernel_size * in.row_stride + at / in.kernel_size * in.block_stride;
    }

    // Computes PX pixels x NV registers of output channels under one chunk.
    template <int PX, int NV>
    static void tile(const Input& in, const Chunk& chunk, const Place& place) {
        F sum[PX][NV];
#pragma GCC unroll 16
        for (int p = 0; p < PX; ++p)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v)
                sum[p][v] =
                    V::load_f32(chunk.opens ? place.bias + v * V::width : place.sums + p * panel + v * V::width);
        const E* w = chunk.weight;
        for (int64_t at = chunk.first; at < chunk.last; ++at) {
            const int64_t block = at / in.kernel_size, ky = at % in.kernel_size;
            const int64_t count = depths_of_block(in.channels, block);
            if (ky < place.ky || ky >= place.ky_end) {
                w += in.kernel_size * count * V::depth * panel;
                continue;
            }
            const bool more = at + 1 < chunk.last;
            const E* next = row_of_taps(in, place.x, more ? at + 1 : chunk.first) + (more ? 0 : PX * conv_block);
            const E* tap = row_of_taps(in, place.x, at);
            for (int64_t kx = 0; kx < in.kernel_size; ++kx, tap += conv_block) {
                const E* x = tap;
#pragma GCC unroll 4
                for (int64_t i = 0; i < count; ++i, x += V::depth, w += V::depth * panel) {
                    __builtin_prefetch(next + i * line);
                    typename V::Operand weights[NV];
#pragma GCC unroll 2
                    for (int v = 0; v < NV; ++v) weights[v] = V::weights(w + v * V::width * V::depth);
#pragma GCC unroll 16
                    for (int p = 0; p < PX; ++p) {
                        const typename V::Operand pixel = V::broadcast(x + p * conv_block);
#pragma GCC unroll 2
                        for (int v = 0; v < NV; ++v) sum[p][v] = V::dot(pixel, weights[v], sum[p][v]);
                    }
                }
            }
        }
        if (!chunk.closes) {
#pragma GCC unroll 16
            for (int p = 0; p < PX; ++p)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) V::store_f32(place.sums + p * panel + v * V::width, sum[p][v]);
            return;
        }
#pragma GCC unroll 16
        for (int p = 0; p < PX; ++p)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) {
                const E* residual = place.residual;
                if (residual != nullptr) {
                    residual += ((place.column + p) >> place.shift) * conv_block + v * V::width;
                    sum[p][v] = V::add(sum[p][v], V::load(residual));
                }
                V::store(place.y + p * conv_block + v * V::width, sum[p][v]);
            }
    }

    using Tile = void (*)(const Input&, const Chunk&, const Place&);

    template <int NV, int... PX>
    static Tile choose(int64_t pixels, std::integer_sequence<int, PX...>) {
        static constexpr Tile table[] = {tile<PX + 1, NV>...};
        return table[pixels - 1];
    }

    // Computes a row of pixels in tiles of nearly equal size; moves `place` past the row. narrow: one register of
    // output channels holds all that the panel uses.
    static void row(const Input& in, const Chunk& chunk, Place& place, int64_t pixels, bool narrow) {
        constexpr auto sizes = std::make_integer_sequence<int, max_pixels>();
        for (int64_t tiles = (pixels + max_pixels - 1) / max_pixels; tiles > 0; --tiles) {
            const int64_t size = pixels / tiles;
            (narrow ? choose<1>(size, sizes) : choose<2>(size, sizes))(in, chunk, place);
            place.x += size * conv_block;
            if (place.y != nullptr) place.y += size * conv_block;
            place.sums += size * panel;
            place.column += size;
            pixels -= size;
        }
    }

    // ---- Passes: some rows and columns under one panel ----

    struct Area {
        int64_t row, row_end, column, column_end;
    };

    // Passes the rows of an area under one panel, chunk by chunk.
    static void pass(const spade_conv& args, const Input& in, int64_t panel_number, const Area& area, float* sums) {
        const int64_t k = in.kernel_size, rows_of_taps = in.blocks * k;
        const int64_t row_bytes = k * conv_block * panel * static_cast<int64_t>(sizeof(E));
        const int64_t step = chunk_bytes / row_bytes > 1 ? chunk_bytes / row_bytes : 1;
        Chunk chunk{};
        chunk.weight = static_cast<const E*>(args.weight) + panel_number * panel_elements(in.channels, k);
        for (chunk.first = 0; chunk.first < rows_of_taps; chunk.first = chunk.last) {
            chunk.last = chunk.first + step < rows_of_taps ? chunk.first + step : rows_of_taps;
            chunk.opens = chunk.first == 0;
            chunk.closes = chunk.last == rows_of_taps;
            rows(args, in, chunk, panel_number, area, sums);
            for (int64_t at = chunk.first; at < chunk.last; ++at)
                chunk.weight += depths_of_block(in.channels, at / k) * k * V::depth * panel;
        }
    }

    // Passes the rows of an area under one chunk.
    static void rows(const spade_conv& args, const Input& in, const Chunk& chunk, int64_t panel_number,
                     const Area& area, float* sums) {
        const int64_t out_blocks = conv_blocks(args.out_channels), shift = args.residual_shift;
        const int64_t block = panel_number / panels_of_block, lane = panel_number % panels_of_block * panel;
        const bool narrow = args.out_channels - panel_number * panel <= V::width;
        const int64_t inside = in.kernel_size == 1 ? 1 : 0;  // k = 1 skips the border
        for (int64_t at = area.row; at < area.row_end; ++at) {
            const int64_t image = at / args.height, r = at % args.height;
            Place place{};
            place.ky = in.kernel_size == 3 && r == 0 ? 1 : 0;
            place.ky_end = in.kernel_size == 3 && r == args.height - 1 ? 2 : in.kernel_size;
            place.x = static_cast<const E*>(args.x) + (image * (args.height + 2) + r + inside) * in.row_stride +
                      (area.column + inside) * conv_block;
            place.sums = sums;
            place.bias = args.bias + block * conv_block + lane;
            if (args.residual != nullptr) {
                const int64_t from = image * (args.height >> shift) + (r >> shift);
                place.residual = static_cast<const E*>(args.residual) +
                                 (from * out_blocks + block) * (args.width >> shift) * conv_block + lane;
            }
            place.column = area.column;
            place.shift = shift;
            place.y =
                static_cast<E*>(args.y) + ((at * out_blocks + block) * args.width + area.column) * conv_block + lane;
            row(in, chunk, place, area.column_end - area.column, narrow);
            sums = place.sums;
        }
    }

    // Writes zeros to the channels of a block that no register of the last panel covers.
    static void clear_unused(const spade_conv& args, int64_t block, int64_t row, int64_t row_end) {
        const int64_t used = (args.out_channels - block * conv_block + V::width - 1) / V::width * V::width;
        for (int64_t at = row; at < row_end && used < conv_block; ++at) {
            E* y = static_cast<E*>(args.y) + (at * conv_blocks(args.out_channels) + block) * args.width * conv_block;
            for (int64_t p = args.left; p < args.right; ++p)
                for (int64_t c = used; c < conv_block; c += V::width) V::store(y + p * conv_block + c, V::zero());
        }
    }

    // Computes one block of output channels of some rows, which are numbered through all images.
    static void area(const spade_conv& args, int64_t block, int64_t row, int64_t row_end) {
        const Input in(args.in_channels, args.width, args.kernel_size);
        alignas(64) float sums[pass_pixels * panel];
        const int64_t all = args.right - args.left, width = all < pass_pixels ? all : pass_pixels;
        const int64_t height = pass_pixels / width;
        const int64_t panels = (args.out_channels + panel - 1) / panel;
        for (Area a{row, row_end, 0, 0}; a.row < row_end; a.row = a.row_end) {
            a.row_end = a.row + height < row_end ? a.row + height : row_end;
            for (int64_t p = block * panels_of_block; p < (block + 1) * panels_of_block && p < panels; ++p)
                for (a.column = args.left; a.column < args.right; a.column = a.column_end) {
                    a.column_end = a.column + width < args.right ? a.column + width : args.right;
                    pass(args, in, p, a, sums);
                }
        }
        clear_unused(args, block, row, row_end);
    }

    // ---- The peak: the multiply-adds of a tile, from registers alone ----

    // Twelve independent sums hide the latency; each is one dot of a full register.
    static int64_t peak(int64_t count) {
        constexpr int sums = 12;
        constexpr int64_t step = 2 * sums * V::width * V::depth;
        // Not constants: the compiler would merge twelve equal sums into one.
        alignas(64) static float start[sums * V::width];
        alignas(64) static E ones[V::width * V::depth];
        typename V::F sum[sums];
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) sum[i] = V::load_f32(start + i * V::width);
        const typename V::Operand x = V::broadcast(ones), w = V::weights(ones);
        const int64_t steps = (count + step - 1) / step;
        for (int64_t at = 0; at < steps; ++at) {
#pragma GCC unroll 16
            for (int i = 0; i < sums; ++i) sum[i] = V::dot(x, w, sum[i]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) V::store_f32(start + i * V::width, sum[i]);
        return steps * step;
    }
};

}  // namespace
}  // namespace spade

#endif
