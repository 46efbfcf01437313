// 3x3 and 1x1 convolution on AMX tiles, on maps in blocks of 32 channels; bf16, summed in float32.
//
//   y[n, r, c, co] = bias[co] + sum over ci block, ky, kx, ci of x[n, r + ky, c + kx, ci] * w[co, ci, ky, kx]
//                    (+ a second conv, 1x1, of another map) (+ residual[n, r >> s, c >> s, co])
//
// Every output sums in this one order, so the split of the work changes no bit.
//
// Layout, blocking, latency: see amx_pass.hpp. The two runs of a tile lie in two neighbouring lines, which share most
// of the x that their taps read. All rows of a range pass under one panel, which stays in the second-level cache.
//
// Operations: 2 * k * k * ci per pixel and output channel. Bytes: a tile reads its panel from the second-level cache; a
// panel reads the map once.
#ifndef SPADE_CONV_AMX_HPP
#define SPADE_CONV_AMX_HPP

#include <cstdint>
#include <type_traits>

#include "cpu/conv/conv_work_split.hpp"
#include "cpu/isa/amx_pass.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

struct ConvAmx {
    // ---- Packed weights: [panel][ci block][ky][kx][2][16 pairs of ci][16 co][2] ----

    static int64_t panel_elements(int64_t in_channels, int64_t kernel_size) {
        return conv_blocks(in_channels) * kernel_size * kernel_size * amx_step;
    }

    static int64_t packed_elements(int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
        return conv_blocks(out_channels) * panel_elements(in_channels, kernel_size);
    }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size, bf16* to) {
        const int64_t taps = kernel_size * kernel_size;
        for (int64_t co0 = 0; co0 < out_channels; co0 += conv_block)
            for (int64_t ci0 = 0; ci0 < in_channels; ci0 += conv_block)
                for (int64_t tap = 0; tap < taps; ++tap, to += amx_step)
                    amx_pack_step(
                        [&](int64_t column, int64_t channel) {
                            const int64_t co = co0 + column, ci = ci0 + channel;
                            const bool used = co < out_channels && ci < in_channels;
                            return used ? weight[(co * in_channels + ci) * taps + tap] : 0.0f;
                        },
                        to);
    }

    // ---- Ranges of rows ----

    // The lines of the padded map spade_conv.x; rows are numbered through all images.
    struct MapLines {
        const bf16* x;
        int64_t elements, height;
        const bf16* operator()(int64_t row, int64_t ky) const {
            return x + (row / height * (height + 2) + row % height + ky) * elements;
        }
    };

    static AmxTerm term_of(const spade_conv& args, int64_t block) {
        const int64_t panel = panel_elements(args.in_channels, args.kernel_size);
        const bf16* weight = static_cast<const bf16*>(args.weight) + block * panel;
        return {weight, conv_blocks(args.in_channels), (args.width + 2) * conv_block};
    }

    // Returns where the taps of a run read x; k = 1 skips the border.
    template <typename Lines>
    static AmxLines reads(const Lines& lines, int64_t kernel_size, int64_t row, int64_t column) {
        if (kernel_size == 1) return {{lines(row, 1) + (column + 1) * conv_block}};
        const int64_t at = column * conv_block;
        return {{lines(row, 0) + at, lines(row, 1) + at, lines(row, 2) + at}};
    }

    // One block of output channels. lines(row, ky): the line of x that a row reads; shortcut: the same for the
    // shortcut's map, or null.
    template <typename Lines>
    struct Area {
        const spade_conv& args;
        const Lines& lines;
        const Lines* shortcut;
        int64_t block;

        void set_run(int64_t row, int run, AmxPlace& place) const {
            const int64_t image = row / args.height, r = row % args.height, shift = args.residual_shift;
            const int64_t out_blocks = conv_blocks(args.out_channels);
            place.x[run] = reads(lines, args.kernel_size, row, place.column);
            if (shortcut != nullptr) place.shortcut[run] = reads(*shortcut, 1, row, place.column);
            place.y[run] =
                static_cast<half*>(args.y) + ((row * out_blocks + block) * args.width + place.column) * conv_block;
            if (args.residual != nullptr) {
                const int64_t from = image * (args.height >> shift) + (r >> shift);
                place.residual[run] = static_cast<const half*>(args.residual) +
                                      (from * out_blocks + block) * (args.width >> shift) * conv_block;
            }
        }

        // Computes `runs` runs of `pixels` pixels from `column` on, in rows row .. row_end - 1, two rows at a time.
        template <int64_t K, typename Beside>
        void columns(const AmxPanels& panel, int64_t row, int64_t row_end, int64_t column, int64_t runs, int64_t pixels,
                     Beside& beside) const {
            constexpr bool ahead =
                std::is_same_v<Lines, MapLines>;  // a ring of lines is in the second-level cache already
            const auto place_of = [&](int64_t i) {
                AmxPlace place{};
                const int64_t first = row + i / runs * 2;
                const bool both = first + 1 < row_end;
                place.column = column + i % runs * pixels;
                place.count[0] = pixels;
                place.count[1] = both ? pixels : 0;
                set_run(first, 0, place);
                set_run(first + both, 1, place);
                return place;
            };
            AmxPass<ahead, Beside>(panel, beside).template run<K>((row_end - row + 1) / 2 * runs, place_of);
        }

        // Computes rows row .. row_end - 1.
        template <int64_t K, typename Beside>
        void rows(const AmxTerm& shortcut_term, int64_t row, int64_t row_end, Beside& beside) const {
            const AmxTerm term = term_of(args, block);
            const bool last = (block + 1) * conv_block >= args.out_channels;
            const bf16* next = last ? nullptr : term.weight + panel_elements(args.in_channels, K);
            const float* bias = args.bias + block * conv_block;
            const AmxPanels panel{term, shortcut_term, next, bias, nullptr, 1, 9, 0, conv_block, args.residual_shift};
            constexpr int64_t pixels = Tiles::amx_pixels;
            const int64_t width = args.right - args.left, runs = width / pixels, rest = width % pixels;
            Tiles tiles;
            if (runs > 0) columns<K>(panel, row, row_end, args.left, runs, pixels, beside);
            if (rest > 0) {
                tiles.configure(rest);
                columns<K>(panel, row, row_end, args.left + runs * pixels, 1, rest, beside);
            }
        }
    };

    // Computes one block of output channels of some rows, and calls `beside` between the products. args.bias must
    // include the shortcut's bias.
    template <typename Lines, typename Beside>
    static void rows(const spade_conv& args, const Lines& lines, const spade_conv* shortcut,
                     const Lines* shortcut_lines, int64_t block, int64_t row, int64_t row_end, Beside& beside) {
        const Area<Lines> area{args, lines, shortcut_lines, block};
        const AmxTerm term = shortcut == nullptr ? AmxTerm{} : term_of(*shortcut, block);
        if (args.kernel_size == 3)
            area.template rows<3>(term, row, row_end, beside);
        else
            area.template rows<1>(term, row, row_end, beside);
    }

    // Computes one block of output channels of some rows of a conv step.
    static void area(const spade_conv& args, int64_t block, int64_t row, int64_t row_end) {
        const MapLines lines{static_cast<const bf16*>(args.x), conv_line(args), args.height};
        auto nothing = [] {};
        rows<MapLines>(args, lines, nullptr, nullptr, block, row, row_end, nothing);
    }

    // ---- The peak: products of tiles from registers alone ----

    static int64_t peak(int64_t count) {
        constexpr int64_t step = 4 * 2 * 16 * 16 * 32;
        alignas(64) static const bf16 zeros[amx_step / 2] = {};
        const Tiles tiles;
        _tile_loadd(4, zeros, 64);
        _tile_loadd(5, zeros, 64);
        _tile_loadd(6, zeros, 64);
        _tile_loadd(7, zeros, 64);
        const int64_t steps = (count + step - 1) / step;
        for (int64_t at = 0; at < steps; ++at) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        return steps * step;
    }
};

}  // namespace
}  // namespace spade

#endif
