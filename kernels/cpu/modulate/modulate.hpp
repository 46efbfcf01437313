// SPADE's modulation, which reads a and b through the plan's index, so that no pixel stores its own gamma and beta.
//
//   out = act(a[index] * ((x - mean) * rstd) + b[index]),    x at (row >> shift, column >> shift)
//
// Bytes: x and index read once, out written once. Entries come from cache, because neighbouring pixels share patches
// and patches are numbered in scan order. Operations: one fused multiply-add per element, and a max.
//
// Fused: normalisation, the x2 upsampling of x (equal pixels are computed once), the activation, the zero border that
// the next conv reads.
#ifndef SPADE_MODULATE_HPP
#define SPADE_MODULATE_HPP

#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

// One line of the padded map, or two lines that are made together.
template <typename T>
struct ModulatedLines {
    int64_t image, line;  // line: -1 .. height
    T *out, *out_below;   // block 0 of each line, at its border; out_below is null for a single line
};

// Whether `line` and the next line are made together: upsampled, both read the same line of x.
inline bool modulates_two(const spade_modulate& args, int64_t line, int64_t end) {
    return args.shift == 1 && line >= 0 && line % 2 == 0 && line + 1 < args.height && line + 1 < end;
}

// One block of channels of one or two lines: `find` sets the pointers once, then columns are made in any pieces.
// Vectors and statistics hold the channels in the ISA's own order, V::lane.
template <typename V>
struct ModulatedBlock {
    using T = typename V::Element;
    using Out = typename V::Input;
    using F = typename V::F;
    static constexpr int vectors = 32 / V::width;

    const T* x = nullptr;  // null: the line is the border of the map, which is zero
    const T* entries = nullptr;
    const int32_t *index = nullptr, *index_below = nullptr;
    Out *out = nullptr, *out_below = nullptr;  // at column 0; out_below is null for a single line
    int64_t shift = 0;
    F mean[vectors], rstd[vectors];

    // Sets the pointers. Writes the zero border: left and right of a line, or all of a border line.
    void find(const spade_modulate& args, const ModulatedLines<Out>& at, int64_t block) {
        const int64_t padded = (args.width + 2) * 32;
        out = at.out + block * padded, out_below = at.out_below == nullptr ? nullptr : at.out_below + block * padded;
        x = nullptr;
        if (at.line < 0 || at.line == args.height) return clear(out, args.width + 2);
        for (Out* line : {out, out_below}) {
            if (line == nullptr) continue;
            clear(line, 1);
            clear(line + (args.width + 1) * 32, 1);
        }
        out += 32, out_below += out_below == nullptr ? 0 : 32;
        shift = args.shift;
        const int64_t source_line = at.image * (args.height >> shift) + (at.line >> shift);
        x = static_cast<const T*>(args.x) + (source_line * args.blocks + block) * (args.width >> shift) * 32;
        if (args.entries != nullptr) {
            index = args.index + (at.image * args.height + at.line) * args.width, index_below = index + args.width;
            entries = static_cast<const T*>(args.entries[at.image]) + block * args.entry_rows[at.image] * 64;
        }
        if (args.mean != nullptr) load_statistics(args, (at.image * args.blocks + block) * 32);
    }

 private:
    static void clear(Out* line, int64_t pixels) {
        std::memset(static_cast<void*>(line), 0, static_cast<size_t>(pixels) * 32 * sizeof(Out));
    }

    void load_statistics(const spade_modulate& args, int64_t first) {
        alignas(64) float ordered[2][32];
        for (int i = 0; i < 32; ++i) {
            const int64_t channel = first + V::lane(i);
            ordered[0][i] = args.mean[channel], ordered[1][i] = args.rstd[channel];
        }
        for (int i = 0; i < vectors; ++i) {
            mean[i] = V::load_f32(ordered[0] + i * V::width);
            rstd[i] = V::load_f32(ordered[1] + i * V::width);
        }
    }
};

// The modulation with or without entries, normalisation and activation.
template <typename V, bool Entries, bool Norm, bool Leaky>
struct Modulation {
    using Block = ModulatedBlock<V>;
    using T = typename V::Element;
    using Out = typename V::Input;
    using F = typename V::F;
    static constexpr int vectors = Block::vectors;

    // Computes one pixel of a block from x.
    static void pixel(const Block& of, const F* x, const int32_t* index, F* value) {
        const F slope = V::set(0.2f);
        F a[vectors], b[vectors];
        if constexpr (Entries) {
            const T* entry = of.entries + static_cast<int64_t>(*index) * 64;
            V::load_block(entry, a);
            V::load_block(entry + 32, b);
        }
        for (int i = 0; i < vectors; ++i) {
            value[i] = x[i];
            if constexpr (Norm) value[i] = V::mul(V::sub(value[i], of.mean[i]), of.rstd[i]);
            if constexpr (Entries) value[i] = V::fma(a[i], value[i], b[i]);
            if constexpr (Leaky) value[i] = V::max(value[i], V::mul(value[i], slope));
        }
    }

    // Makes columns column .. end - 1 of one line.
    template <bool Upsampled>
    static void line(const Block& of, int64_t column, int64_t end) {
        F read[vectors], value[vectors];
        for (; column < end; ++column) {
            V::load_block(of.x + (Upsampled ? column >> of.shift : column) * 32, read);
            pixel(of, read, of.index + column, value);
            V::store_block(of.out + column * 32, value);
        }
    }

    // Makes columns column .. end - 1 of two lines that read x upsampled by 2. Four pixels read one pixel of x; if they
    // share an entry, they are computed once.
    static void two_lines(const Block& of, int64_t column, int64_t end) {
        F read[vectors], value[vectors];
        const T* x = of.x + column / 2 * 32;
        Out *out = of.out + column * 32, *below = of.out_below + column * 32;
        for (; column < end; column += 2, x += 32, out += 64, below += 64) {
            const int32_t *index = of.index + column, *index_below = of.index_below + column;
            V::load_block(x, read);
            pixel(of, read, index, value);
            V::store_block(out, value);
            if (!Entries || (index[1] == index[0] && index_below[0] == index[0] && index_below[1] == index[0])) {
                V::store_block(out + 32, value);
                V::store_block(below, value);
                V::store_block(below + 32, value);
                continue;
            }
            pixel(of, read, index + 1, value);
            V::store_block(out + 32, value);
            pixel(of, read, index_below, value);
            V::store_block(below, value);
            pixel(of, read, index_below + 1, value);
            V::store_block(below + 32, value);
        }
    }

    static void columns(const Block& block, int64_t column, int64_t end) {
        const Block of = block;  // a copy, so that the compiler keeps the fields in registers across stores
        if (of.x == nullptr) return;
        if (of.out_below != nullptr)
            two_lines(of, column, end);
        else if (of.shift != 0)
            line<true>(of, column, end);
        else
            line<false>(of, column, end);
    }
};

template <typename V>
using ModulateColumns = void (*)(const ModulatedBlock<V>&, int64_t, int64_t);

template <typename V>
ModulateColumns<V> modulate_columns_of(const spade_modulate& args) {
    static constexpr ModulateColumns<V> of[] = {
        Modulation<V, false, false, false>::columns, Modulation<V, false, false, true>::columns,
        Modulation<V, false, true, false>::columns,  Modulation<V, false, true, true>::columns,
        Modulation<V, true, false, false>::columns,  Modulation<V, true, false, true>::columns,
        Modulation<V, true, true, false>::columns,   Modulation<V, true, true, true>::columns,
    };
    return of[(args.entries != nullptr ? 4 : 0) + (args.mean != nullptr ? 2 : 0) + (args.leaky != 0 ? 1 : 0)];
}

// Makes columns of lines first .. end - 1 of one image's padded map.
template <typename V>
void modulate_lines(const spade_modulate& args, int64_t image, Span lines, Span columns) {
    using T = typename V::Input;
    const ModulateColumns<V> make = modulate_columns_of<V>(args);
    const int64_t line_elements = args.blocks * (args.width + 2) * 32;
    ModulatedBlock<V> block;
    for (int64_t number = lines.first; number < lines.end; ++number) {
        const int64_t line = number - 1;
        T* const out = static_cast<T*>(args.out) + (image * (args.height + 2) + number) * line_elements;
        const bool two = modulates_two(args, line, lines.end - 1);
        const ModulatedLines<T> at{image, line, out, two ? out + line_elements : nullptr};
        for (int64_t of_channels = 0; of_channels < args.blocks; ++of_channels) {
            block.find(args, at, of_channels);
            make(block, columns.first, columns.end);
        }
        if (two) ++number;
    }
}

// A work item is one line of the padded maps.
template <typename V>
void modulate(const spade_modulate& args, int64_t begin, int64_t end) {
    const Span lines = modulated_lines(args), columns = modulated_columns(args, args.left, args.right);
    const int64_t of_image = lines.end - lines.first;
    while (begin < end) {
        const int64_t image = begin / of_image, first = begin % of_image;
        const int64_t last = first + (end - begin) < of_image ? first + (end - begin) : of_image;
        modulate_lines<V>(args, image, {lines.first + first, lines.first + last}, columns);
        begin += last - first;
    }
}

}  // namespace
}  // namespace spade

#endif
