// SPADE's modulation, read through the plan's index, so that gamma and beta are never stored per pixel.
//
//   out = act(a[index] * ((x - mean) * rstd) + b[index]),    x at (row >> shift, column >> shift)
//
// Bytes: x and index read once, out written once; entries come from cache, since neighbouring pixels share patches and
// patches are numbered in scan order. Operations: one fused multiply-add per element, and a max.
//
// Fused: normalisation, the x2 upsampling in the read, which saves the work of equal pixels, the activation, the border
// that the next conv wants.
#ifndef SPADE_MODULATE_HPP
#define SPADE_MODULATE_HPP

#include <cstdint>
#include <cstring>

#include "spade_kernels.h"

namespace spade {
namespace {

// One block of one modulation. Vectors hold the channels in the tier's own order, as mean and rstd do here.
template <typename V, bool Entries, bool Norm, bool Leaky>
struct Modulation {
    using T = typename V::Element;
    using Out = typename V::Input;
    using F = typename V::F;
    static constexpr int vectors = 32 / V::width;

    F centre[vectors], scale[vectors];
    const T* entries;

    Modulation(const float* mean, const float* rstd, const T* of_block) : entries(of_block) {
        for (int i = 0; i < vectors; ++i) {
            centre[i] = Norm ? V::load_f32(mean + i * V::width) : V::zero();
            scale[i] = Norm ? V::load_f32(rstd + i * V::width) : V::zero();
        }
    }

    void pixel(const F* x, const int32_t* index, F* value) const {
        const F slope = V::set(0.2f);
        F a[vectors], b[vectors];
        if constexpr (Entries) {
            const T* entry = entries + static_cast<int64_t>(*index) * 64;
            V::load_block(entry, a);
            V::load_block(entry + 32, b);
        }
        for (int i = 0; i < vectors; ++i) {
            value[i] = x[i];
            if constexpr (Norm) value[i] = V::mul(V::sub(value[i], centre[i]), scale[i]);
            if constexpr (Entries) value[i] = V::fma(a[i], value[i], b[i]);
            if constexpr (Leaky) value[i] = V::max(value[i], V::mul(value[i], slope));
        }
    }

    // Columns column .. end - 1 of one line.
    void line(const T* x, int64_t shift, const int32_t* index, int64_t column, int64_t end, Out* out) const {
        F read[vectors], value[vectors];
        for (; column < end; ++column) {
            V::load_block(x + (column >> shift) * 32, read);
            pixel(read, index + column, value);
            V::store_block(out + column * 32, value);
        }
    }

    // The same of two lines that both read x upsampled by 2: where the four pixels of one of x share their entry, it is
    // used once.
    void two_lines(const T* x, const int32_t* index, const int32_t* index_below, int64_t column, int64_t end, Out* out,
                   Out* out_below) const {
        F read[vectors], value[vectors];
        x += column / 2 * 32, out += column * 32, out_below += column * 32;
        for (; column < end; column += 2, x += 32, out += 64, out_below += 64) {
            V::load_block(x, read);
            pixel(read, index + column, value);
            V::store_block(out, value);
            const int32_t* below = index_below + column;
            const bool one = !Entries || (index[column + 1] == index[column] && below[0] == index[column] &&
                                          below[1] == index[column]);
            if (!one) pixel(read, index + column + 1, value);
            V::store_block(out + 32, value);
            if (!one) pixel(read, below, value);
            V::store_block(out_below, value);
            if (!one) pixel(read, below + 1, value);
            V::store_block(out_below + 32, value);
        }
    }
};

// Where a line of the padded map lies, or two.
template <typename T>
struct ModulatedLines {
    int64_t image, line;  // -1 .. height
    T *out, *out_below;   // of block 0, with their borders; the second null where there is one line
};

// What `modulate` takes at once: two lines read the same of x.
inline bool modulates_two(const spade_modulate& args, int64_t line, int64_t end) {
    return args.shift == 1 && line >= 0 && line % 2 == 0 && line + 1 < args.height && line + 1 < end;
}

template <typename T>
inline void clear_pixels(T* out, int64_t count) {
    if (out != nullptr) std::memset(static_cast<void*>(out), 0, static_cast<size_t>(count) * 32 * sizeof(T));
}

// Columns column .. end - 1 of one block, with the border beside the first and the last.
template <typename V, bool Entries, bool Norm, bool Leaky>
void modulate_columns(const spade_modulate& args, const ModulatedLines<typename V::Input>& at, int64_t block,
                      int64_t column, int64_t end) {
    using T = typename V::Element;
    const int64_t n = at.image, padded = (args.width + 2) * 32, source_width = args.width >> args.shift;
    typename V::Input *out = at.out + block * padded,
                      *below = at.out_below == nullptr ? nullptr : at.out_below + block * padded;
    const int64_t before = column == 0 ? 0 : column + 1, after = end == args.width ? end + 2 : end + 1;
    if (at.line < 0 || at.line == args.height) return clear_pixels(out + before * 32, after - before);
    if (column == 0) clear_pixels(out, 1), clear_pixels(below, 1);
    if (end == args.width) {
        clear_pixels(out + (end + 1) * 32, 1);
        if (below != nullptr) clear_pixels(below + (end + 1) * 32, 1);
    }
    const int64_t source_line = n * (args.height >> args.shift) + (at.line >> args.shift);
    const T* x = static_cast<const T*>(args.x) + (source_line * args.blocks + block) * source_width * 32;
    const int32_t* index = Entries ? args.index + (n * args.height + at.line) * args.width : nullptr;
    const T* entries = Entries ? static_cast<const T*>(args.entries[n]) + block * args.entry_rows[n] * 64 : nullptr;
    alignas(64) float mean[32], rstd[32];
    if constexpr (Norm)
        for (int i = 0; i < 32; ++i) {
            const int64_t channel = (n * args.blocks + block) * 32 + V::lane(i);
            mean[i] = args.mean[channel], rstd[i] = args.rstd[channel];
        }
    const Modulation<V, Entries, Norm, Leaky> modulation(mean, rstd, entries);
    if (below != nullptr)
        modulation.two_lines(x, index, index + args.width, column, end, out + 32, below + 32);
    else
        modulation.line(x, args.shift, index, column, end, out + 32);
}

template <typename V>
using ModulateColumns = void (*)(const spade_modulate&, const ModulatedLines<typename V::Input>&, int64_t, int64_t,
                                 int64_t);

template <typename V>
ModulateColumns<V> modulate_columns_of(const spade_modulate& args) {
    static constexpr ModulateColumns<V> of[] = {
        modulate_columns<V, false, false, false>, modulate_columns<V, false, false, true>,
        modulate_columns<V, false, true, false>,  modulate_columns<V, false, true, true>,
        modulate_columns<V, true, false, false>,  modulate_columns<V, true, false, true>,
        modulate_columns<V, true, true, false>,   modulate_columns<V, true, true, true>,
    };
    return of[(args.entries != nullptr ? 4 : 0) + (args.mean != nullptr ? 2 : 0) + (args.leaky != 0 ? 1 : 0)];
}

// Units are lines of the padded maps.
template <typename V>
void modulate(const spade_modulate& args, int64_t begin, int64_t end) {
    using T = typename V::Input;
    const ModulateColumns<V> columns = modulate_columns_of<V>(args);
    const int64_t line_elements = args.blocks * (args.width + 2) * 32;
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t image = unit / (args.height + 2), line = unit % (args.height + 2) - 1;
        T* const out = static_cast<T*>(args.out) + unit * line_elements;
        const bool two = modulates_two(args, line, line + end - unit);
        const ModulatedLines<T> at{image, line, out, two ? out + line_elements : nullptr};
        for (int64_t block = 0; block < args.blocks; ++block) columns(args, at, block, 0, args.width);
        if (two) ++unit;
    }
}

}  // namespace
}  // namespace spade

#endif
