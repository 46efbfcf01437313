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

    void line(const T* x, int64_t shift, const int32_t* index, int64_t width, T* out) const {
        F read[vectors], value[vectors];
        for (int64_t column = 0; column < width; ++column, out += 32) {
            V::load_block(x + (column >> shift) * 32, read);
            pixel(read, index + column, value);
            V::store_block(out, value);
        }
    }

    // Two lines that both read x upsampled by 2: where the four pixels of one of x share their entry, it is used once.
    void two_lines(const T* x, const int32_t* index, const int32_t* index_below, int64_t width, T* out,
                   T* out_below) const {
        F read[vectors], value[vectors];
        for (int64_t column = 0; column < width; column += 2, x += 32, out += 64, out_below += 64) {
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

template <typename T>
inline void clear_sides(T* line, int64_t width) {
    std::memset(static_cast<void*>(line), 0, 32 * sizeof(T));
    std::memset(static_cast<void*>(line + (width + 1) * 32), 0, 32 * sizeof(T));
}

// One or two lines of the padded map, all blocks.
template <typename V, bool Entries, bool Norm, bool Leaky>
void modulate_lines(const spade_modulate& args, int64_t unit, bool two) {
    using T = typename V::Element;
    const int64_t n = unit / (args.height + 2), line = unit % (args.height + 2) - 1;
    const int64_t padded = (args.width + 2) * 32, below = args.blocks * padded;
    const int64_t source_width = args.width >> args.shift;
    T* out = static_cast<T*>(args.out) + unit * below;
    if (line < 0 || line == args.height) {
        std::memset(static_cast<void*>(out), 0, static_cast<size_t>(below) * sizeof(T));
        return;
    }
    const T* x = static_cast<const T*>(args.x) +
                 (n * (args.height >> args.shift) + (line >> args.shift)) * args.blocks * source_width * 32;
    const int32_t* index = Entries ? args.index + (n * args.height + line) * args.width : nullptr;
    const T* entries = Entries ? static_cast<const T*>(args.entries[n]) : nullptr;
    const int64_t table = Entries ? args.entry_rows[n] * 64 : 0;
    alignas(64) float mean[32], rstd[32];
    for (int64_t block = 0; block < args.blocks; ++block, out += padded, x += source_width * 32) {
        if constexpr (Norm)
            for (int i = 0; i < 32; ++i) {
                const int64_t channel = (n * args.blocks + block) * 32 + V::lane(i);
                mean[i] = args.mean[channel], rstd[i] = args.rstd[channel];
            }
        const Modulation<V, Entries, Norm, Leaky> modulation(mean, rstd, entries + block * table);
        clear_sides(out, args.width);
        if (two) {
            clear_sides(out + below, args.width);
            modulation.two_lines(x, index, index + args.width, args.width, out + 32, out + below + 32);
        } else {
            modulation.line(x, args.shift, index, args.width, out + 32);
        }
    }
}

template <typename V>
void modulate(const spade_modulate& args, int64_t begin, int64_t end) {
    using Run = void (*)(const spade_modulate&, int64_t, bool);
    static constexpr Run runs[] = {
        modulate_lines<V, false, false, false>, modulate_lines<V, false, false, true>,
        modulate_lines<V, false, true, false>,  modulate_lines<V, false, true, true>,
        modulate_lines<V, true, false, false>,  modulate_lines<V, true, false, true>,
        modulate_lines<V, true, true, false>,   modulate_lines<V, true, true, true>,
    };
    const Run run =
        runs[(args.entries != nullptr ? 4 : 0) + (args.mean != nullptr ? 2 : 0) + (args.leaky != 0 ? 1 : 0)];
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t line = unit % (args.height + 2) - 1;
        const bool two = args.shift == 1 && line >= 0 && line % 2 == 0 && line < args.height && unit + 1 < end;
        run(args, unit, two);
        if (two) ++unit;
    }
}

}  // namespace
}  // namespace spade

#endif
