// A modulated conv on AMX tiles: y = conv(modulate(x)) (+ conv1x1(modulate(s))), without the maps between.
//
// Layout: a ring of modulated lines in scratch, which stays in the second-level cache. The ring holds the lines that a
// band of rows reads and the lines of the next band. The vector units make the next band's lines piece by piece between
// the products of tiles. A range of bands makes every line once.
//
// Operations and bytes: see conv_amx.hpp and modulate.hpp.
//
// Fused: modulation, conv, shortcut, residual.
#ifndef SPADE_MODULATED_CONV_AMX_HPP
#define SPADE_MODULATED_CONV_AMX_HPP

#include <cstdint>

#include "cpu/conv/conv_amx.hpp"
#include "cpu/conv/conv_to_rgb_amx.hpp"
#include "cpu/conv/conv_work_split.hpp"
#include "cpu/modulate/modulate.hpp"

namespace spade {
namespace {

// The padded, modulated lines of one image, made in pieces and in order.
class ModulatedRing {
 public:
    ModulatedRing(const spade_modulate& args, const spade_conv& conv, int64_t lines, bf16* ring)
        : args_(args),
          columns_(modulate_columns_of<AmxHalf>(args)),
          read_(read_columns(conv, args)),
          ring_(ring),
          lines_(lines),
          elements_(conv_line(conv)) {}

    // Starts with lines first .. end - 1 of an image's padded map.
    void begin(int64_t image, int64_t first, int64_t end) {
        image_ = image, line_ = first, end_ = end, block_ = 0, column_ = read_.first;
    }
    // Continues to line end - 1.
    void go_on(int64_t end) { end_ = end > end_ ? end : end_; }

    bool made() const { return line_ >= end_; }

    // Makes up to `piece` columns of one block of a line, or of a pair of lines.
    void make_piece() {
        if (column_ == read_.first) find_block();
        const int64_t end = column_ + piece < read_.end ? column_ + piece : read_.end;
        columns_(found_, column_, end);
        column_ = end;
        if (column_ < read_.end) return;
        column_ = read_.first;
        if (++block_ < args_.blocks) return;
        block_ = 0;
        line_ += found_.out_below != nullptr ? 2 : 1;
    }

    // Returns about how many pieces so many lines take; upsampled lines are made in pairs.
    int64_t pieces(int64_t lines) const {
        const int64_t passes = args_.shift == 1 ? (lines + 1) / 2 : lines;
        return passes * args_.blocks * ((read_.end - read_.first + piece - 1) / piece);
    }

    bf16* line(int64_t number) const { return ring_ + number % lines_ * elements_; }

    // The line that a row of the image reads under tap ky, for ConvAmx.
    const bf16* operator()(int64_t row, int64_t ky) const { return line(row + ky); }

 private:
    static constexpr int64_t piece = 8;  // columns: few, so that the next product of tiles does not wait

    void find_block() {
        const bool two = modulates_two(args_, line_ - 1, end_ - 1);
        found_.find(args_, {image_, line_ - 1, line(line_), two ? line(line_ + 1) : nullptr}, block_);
    }

    const spade_modulate& args_;
    const ModulateColumns<AmxHalf> columns_;
    const Span read_;  // columns that the conv reads
    bf16* const ring_;
    const int64_t lines_, elements_;
    int64_t image_ = 0, line_ = 0, end_ = 0, block_ = 0, column_ = 0;
    ModulatedBlock<AmxHalf> found_;  // set while column_ is within a line
};

struct ModulatedConvAmx {
    // Makes lines of the next band between the products of this band.
    struct Beside {
        ModulatedRing& main;
        ModulatedRing* shortcut;
        AmxPieces pieces{};

        void operator()() {
            pieces.step([&] {
                if (!main.made())
                    main.make_piece();
                else if (shortcut != nullptr && !shortcut->made())
                    shortcut->make_piece();
            });
        }
        // Makes all lines that are still missing.
        void rest() {
            while (!main.made()) main.make_piece();
            while (shortcut != nullptr && !shortcut->made()) shortcut->make_piece();
            amx_publish(main.line(0));
        }
    };

    // Returns one past the last line that rows .. row_end - 1 need; k = 3 adds a line, so that a pair is never split.
    static int64_t lines_end(const spade_conv& conv, int64_t row_end) {
        if (conv.kernel_size == 1) return row_end + 1;
        return row_end + 3 < conv.height + 2 ? row_end + 3 : conv.height + 2;
    }

    // Returns the first line that rows from `row` on need.
    static int64_t lines_first(const spade_conv& conv, int64_t row) { return row + (conv.kernel_size == 1 ? 1 : 0); }

    // Returns the steps of tile products that so many rows of a conv take.
    static int64_t steps(const spade_conv& conv, int64_t rows) {
        const int64_t tiles = (rows + 1) / 2 * ((conv.right - conv.left + 15) / 16);
        return tiles * conv_blocks(conv.out_channels) * conv_blocks(conv.in_channels) * conv.kernel_size *
               conv.kernel_size;
    }

    // A work item is one band of rows of one image, see amx_bands.
    static void run(const spade_modulated_conv& args, int64_t begin, int64_t end, void* scratch) {
        const ConvBands bands = amx_bands(args);
        const spade_conv& whole = args.conv;
        const bool with_shortcut = args.has_shortcut != 0;
        const int64_t lines = 2 * bands.rows + 3, blocks = conv_blocks(whole.out_channels);
        const int64_t out_line = blocks * whole.width * conv_block, shift = whole.residual_shift;
        auto* const memory = static_cast<bf16*>(scratch);
        ModulatedRing main(args.modulate, whole, lines, memory);
        ModulatedRing beside_main(args.shortcut_modulate, args.shortcut, 2 * bands.rows,
                                  memory + lines * conv_line(whole));
        ModulatedRing* const shortcut = with_shortcut ? &beside_main : nullptr;
        Beside beside{main, shortcut};
        for (int64_t item = begin; item < end; ++item) {
            const int64_t image = item / bands.of_image, band = item % bands.of_image;
            const int64_t row = whole.top + band * bands.rows;
            const int64_t row_end = row + bands.rows < whole.bottom ? row + bands.rows : whole.bottom;
            if (item == begin || band == 0) {
                main.begin(image, lines_first(whole, row), lines_end(whole, row_end));
                if (with_shortcut) shortcut->begin(image, row + 1, row_end + 1);
                beside.rest();
            }
            if (item + 1 < end && band + 1 < bands.of_image) {
                const int64_t next_end = row_end + bands.rows < whole.bottom ? row_end + bands.rows : whole.bottom;
                main.go_on(lines_end(whole, next_end));
                int64_t pieces = main.pieces(next_end - row_end), products = steps(whole, row_end - row);
                if (with_shortcut) {
                    shortcut->go_on(next_end + 1);
                    pieces += shortcut->pieces(next_end - row_end);
                    products += steps(args.shortcut, row_end - row);
                }
                beside.pieces.spread(pieces, products);
            }
            spade_conv conv = whole;
            conv.n = 1;
            conv.y = static_cast<half*>(whole.y) + image * whole.height * out_line;
            if (whole.residual != nullptr)
                conv.residual =
                    static_cast<const half*>(whole.residual) + image * (whole.height >> shift) * (out_line >> shift);
            if (is_conv_to_rgb(conv.out_channels, conv.kernel_size))
                ConvToRgbAmx::image_rows(conv, main, 0, row, row_end);
            else
                for (int64_t block = 0; block < blocks; ++block)
                    ConvAmx::rows(conv, main, with_shortcut ? &args.shortcut : nullptr, shortcut, block, row, row_end,
                                  beside);
            beside.rest();
        }
    }
};

}  // namespace
}  // namespace spade

#endif
