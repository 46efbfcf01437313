// SPADE's modulation, read through the plan's index, so that gamma and beta are never stored per pixel.
//
//   out = act(a[index] * ((x - mean) * rstd) + b[index]),    x at (row >> shift, column >> shift)
//
// Bytes: x and index read once, out written once; entries come from cache, since neighbouring pixels share patches and
// patches are numbered in scan order. Operations: one fused multiply-add per element, and a max.
//
// Fused: normalisation, the x2 upsampling in the read, the activation, the border that the next conv wants.
#ifndef SPADE_MODULATE_HPP
#define SPADE_MODULATE_HPP

#include <cstdint>
#include <cstring>

#include "spade_kernels.h"

namespace spade {
namespace {

// A block's pixels of one line. Vectors hold the channels in the tier's own order, as mean and rstd do here.
template <typename V, bool Entries, bool Norm, bool Leaky>
inline void modulate_line(const typename V::Element* x, int64_t shift, const typename V::Element* entries,
                          const int32_t* index, const float* mean, const float* rstd, int64_t width,
                          typename V::Element* out) {
    constexpr int vectors = 32 / V::width;
    using F = typename V::F;
    const F slope = V::set(0.2f);
    F centre[vectors], scale[vectors], value[vectors], a[vectors], b[vectors];
    for (int i = 0; i < vectors; ++i) {
        centre[i] = Norm ? V::load_f32(mean + i * V::width) : V::zero();
        scale[i] = Norm ? V::load_f32(rstd + i * V::width) : V::zero();
    }
    for (int64_t column = 0; column < width; ++column) {
        V::load_block(x + (column >> shift) * 32, value);
        if constexpr (Entries) {
            const typename V::Element* entry = entries + static_cast<int64_t>(index[column]) * 64;
            V::load_block(entry, a);
            V::load_block(entry + 32, b);
        }
        for (int i = 0; i < vectors; ++i) {
            if constexpr (Norm) value[i] = V::mul(V::sub(value[i], centre[i]), scale[i]);
            if constexpr (Entries) value[i] = V::fma(a[i], value[i], b[i]);
            if constexpr (Leaky) value[i] = V::max(value[i], V::mul(value[i], slope));
        }
        V::store_block(out + column * 32, value);
    }
}

// One line of the padded map, all blocks.
template <typename V, bool Entries, bool Norm, bool Leaky>
void modulate_unit(const spade_modulate& args, int64_t unit) {
    using T = typename V::Element;
    const int64_t n = unit / (args.height + 2), line = unit % (args.height + 2) - 1;
    const int64_t padded = (args.width + 2) * 32, source_width = args.width >> args.shift;
    T* out = static_cast<T*>(args.out) + unit * args.blocks * padded;
    if (line < 0 || line == args.height) {
        std::memset(static_cast<void*>(out), 0, static_cast<size_t>(args.blocks * padded) * sizeof(T));
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
        std::memset(static_cast<void*>(out), 0, 32 * sizeof(T));
        modulate_line<V, Entries, Norm, Leaky>(x, args.shift, entries + block * table, index, mean, rstd, args.width,
                                               out + 32);
        std::memset(static_cast<void*>(out + padded - 32), 0, 32 * sizeof(T));
    }
}

template <typename V>
void modulate(const spade_modulate& args, int64_t begin, int64_t end) {
    using Run = void (*)(const spade_modulate&, int64_t);
    static constexpr Run runs[] = {
        modulate_unit<V, false, false, false>, modulate_unit<V, false, false, true>,
        modulate_unit<V, false, true, false>,  modulate_unit<V, false, true, true>,
        modulate_unit<V, true, false, false>,  modulate_unit<V, true, false, true>,
        modulate_unit<V, true, true, false>,   modulate_unit<V, true, true, true>,
    };
    const Run run =
        runs[(args.entries != nullptr ? 4 : 0) + (args.mean != nullptr ? 2 : 0) + (args.leaky != 0 ? 1 : 0)];
    for (int64_t unit = begin; unit < end; ++unit) run(args, unit);
}

}  // namespace
}  // namespace spade

#endif
