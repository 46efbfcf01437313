// The convs of one ISA: splits work items into areas and calls Wide, the conv to many channels, or ToRgb, the conv to
// at most three channels.
//
// A modulated conv writes the modulated rows of a band to scratch and reads them there, so that they stay in cache. The
// rows at the boundary of two bands are made twice.
#ifndef SPADE_CONV_ISA_HPP
#define SPADE_CONV_ISA_HPP

#include <cstdint>

#include "cpu/conv/conv_table.hpp"
#include "cpu/conv/conv_to_rgb.hpp"
#include "cpu/conv/conv_work_split.hpp"
#include "cpu/modulate/modulate.hpp"

namespace spade {
namespace {

template <typename V, typename Wide, typename ToRgb>
struct ConvIsa {
    using E = typename V::Element;
    using Input = typename V::Input;

    static int64_t packed_bytes(int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
        int64_t count = Wide::packed_elements(out_channels, in_channels, kernel_size);
        if (is_conv_to_rgb(out_channels, kernel_size)) count = ToRgb::packed_elements(in_channels);
        return count * static_cast<int64_t>(sizeof(Input));
    }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed) {
        if (is_conv_to_rgb(out_channels, kernel_size))
            return ToRgb::pack(weight, out_channels, in_channels, static_cast<Input*>(packed));
        Wide::pack(weight, out_channels, in_channels, kernel_size, static_cast<Input*>(packed));
    }

    // Computes one block of output channels of some rows.
    static void area(const spade_conv& args, int64_t block, int64_t row, int64_t row_end) {
        if (is_conv_to_rgb(args.out_channels, args.kernel_size)) return ToRgb::area(args, row, row_end);
        Wide::area(args, block, row, row_end);
    }

    static void run(const spade_conv& args, int64_t begin, int64_t end) {
        const ConvSplit split = conv_split(args);
        const int64_t all_rows = args.n * (args.bottom - args.top), top = args.top;  // top > 0: one image
        if (args.kernel_size == 1) {
            // Weights are smaller than the map: all panels pass over a group of rows while the rows are in cache.
            const int64_t blocks = conv_blocks(args.out_channels);
            for (; begin < end; ++begin) {
                const int64_t row = begin / blocks * split.rows;
                const int64_t row_end = row + split.rows < all_rows ? row + split.rows : all_rows;
                area(args, begin % blocks, top + row, top + row_end);
            }
            return;
        }
        while (begin < end) {
            const int64_t block = begin / split.groups, first = begin % split.groups;
            const int64_t last = first + (end - begin) < split.groups ? first + (end - begin) : split.groups;
            const int64_t row = first * split.rows;
            const int64_t row_end = last * split.rows < all_rows ? last * split.rows : all_rows;
            area(args, block, top + row, top + row_end);
            begin += last - first;
        }
    }

    // Returns the address that row 0 of a whole map would have if its row `first` were at `rows`.
    template <typename T>
    static T* shifted(T* rows, int64_t first, int64_t row_elements) {
        return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(rows) -
                                    static_cast<uintptr_t>(first * row_elements) * sizeof(T));
    }

    // Modulates the lines that rows row .. row_end - 1 of one image read, into scratch. Returns the conv that reads
    // them.
    static spade_conv modulate_band(const spade_modulate& modulated, const spade_conv& conv, int64_t image, int64_t row,
                                    int64_t row_end, E* scratch) {
        const int64_t line = conv_line(conv), halo = conv.kernel_size == 1 ? 0 : 1;
        const int64_t first = row + 1 - halo, last = row_end + 1 + halo;  // of the padded map
        spade_modulate of_band = modulated;
        of_band.out = shifted(scratch, image * (conv.height + 2) + first, line);
        modulate_lines<V>(of_band, image, {first, last}, read_columns(conv, modulated));
        spade_conv one = conv;
        one.n = 1;
        one.x = shifted(scratch, first, line);
        return one;
    }

    // The shortcut is computed first, into scratch, and added as a residual. A work item is one band of rows.
    static void run_modulated(const spade_modulated_conv& args, int64_t begin, int64_t end, void* scratch) {
        const ConvBands bands = conv_bands(args, sizeof(E));
        const spade_conv& whole = args.conv;
        const int64_t height = whole.height, out_line = conv_blocks(whole.out_channels) * whole.width * conv_block;
        E* const rows = static_cast<E*>(scratch);
        E* const shortcut_rows = rows + (bands.rows + 2) * conv_line(whole);
        E* const shortcut_out = shortcut_rows + bands.rows * conv_line(args.shortcut);
        for (int64_t item = begin; item < end; ++item) {
            const int64_t image = item / bands.of_image, row = whole.top + item % bands.of_image * bands.rows;
            const int64_t row_end = row + bands.rows < whole.bottom ? row + bands.rows : whole.bottom;
            spade_conv conv = modulate_band(args.modulate, whole, image, row, row_end, rows);
            conv.y = static_cast<E*>(whole.y) + image * height * out_line;
            if (whole.residual != nullptr)
                conv.residual = static_cast<const E*>(whole.residual) +
                                image * (height >> whole.residual_shift) * (out_line >> whole.residual_shift);
            if (args.has_shortcut == 0) {
                areas(conv, row, row_end);
                continue;
            }
            spade_conv shortcut =
                modulate_band(args.shortcut_modulate, args.shortcut, image, row, row_end, shortcut_rows);
            shortcut.y = shifted(shortcut_out, row, out_line);
            areas(shortcut, row, row_end);
            conv.residual = shortcut.y;
            conv.residual_shift = 0;
            areas(conv, row, row_end);
        }
    }

    // Computes all blocks of output channels of some rows.
    static void areas(const spade_conv& args, int64_t row, int64_t row_end) {
        const int64_t blocks = is_conv_to_rgb(args.out_channels, args.kernel_size) ? 1 : conv_blocks(args.out_channels);
        for (int64_t block = 0; block < blocks; ++block) area(args, block, row, row_end);
    }

    static constexpr ConvFunctions functions{packed_bytes, pack, Wide::peak};
};

}  // namespace
}  // namespace spade

// Defines the conv functions of the C header for one vector type V. Included by one file per ISA, which is compiled for
// that instruction set.
#define SPADE_DEFINE_CONVS(V, isa)                                                                                 \
    namespace spade {                                                                                              \
    using Convs = ConvIsa<V, Conv<V>, ConvToRgb<V>>;                                                               \
    const ConvFunctions conv_##isa = Convs::functions;                                                             \
    }                                                                                                              \
    void spade_conv_##isa(const spade_conv* args, int64_t begin, int64_t end) {                                    \
        spade::Convs::run(*args, begin, end);                                                                      \
    }                                                                                                              \
    void spade_modulated_conv_##isa(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch) { \
        spade::Convs::run_modulated(*args, begin, end, scratch);                                                   \
    }

#endif
