// The conv on a one-hot map: a row of the table per tap, gathered and added, so that no one-hot map ever exists.
//
//   out[row] = relu(bias + sum over taps of table[tap][patches[row][tap]])
//
// Layout: the table is float32 for every T, so sums are rounded to T once.
//
// Bytes: taps * depth * 4 read per row, from the table rows that the map's labels use; one row of T written.
// Operations: taps additions per output. Fused: bias, ReLU, rounding (to bytes for int8 products), the layout of a
// plain map, the zero row.
#ifndef SPADE_EMBED_HPP
#define SPADE_EMBED_HPP

#include <cstdint>

#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

template <typename V, typename T>
inline void embed_block(const spade_embed& args, const int32_t* patch, int64_t channel, T* out) {
    constexpr int vectors = 32 / V::width;
    typename V::F sum[vectors];
    for (int i = 0; i < vectors; ++i) sum[i] = V::load_f32(args.bias + channel + i * V::width);
    for (int64_t tap = 0; tap < args.taps; ++tap) {
        const float* row = args.table + (tap * (args.symbols + 1) + patch[tap]) * args.depth + channel;
        for (int i = 0; i < vectors; ++i) sum[i] = V::add(sum[i], V::load_f32(row + i * V::width));
    }
    for (int i = 0; i < vectors; ++i) V::store(out + i * V::width, args.relu != 0 ? V::max(sum[i], V::zero()) : sum[i]);
}

template <typename V, typename T>
void embed_rows(const spade_embed& args, int64_t begin, int64_t end) {
    const int64_t blocks = args.depth / 32;
    const int64_t last = end * embed_item_rows < args.rows ? end * embed_item_rows : args.rows;
    for (int64_t row = begin * embed_item_rows; row < last; ++row) {
        T* out = static_cast<T*>(args.out) + (row / args.width * blocks * args.width + row % args.width) * 32;
        for (int64_t block = 0; block < blocks; ++block)
            embed_block<V, T>(args, args.patches + row * args.taps, block * 32, out + block * args.width * 32);
    }
    if (args.zero_row != 0 && end * embed_item_rows > args.rows) {
        T* out = static_cast<T*>(args.out) + args.rows * args.depth;
        for (int64_t i = 0; i < args.depth; i += V::width) V::store(out + i, V::zero());
    }
}

template <typename V>
void embed(const spade_embed& args, int64_t begin, int64_t end) {
    if constexpr (V::bytes)
        if (args.as_bytes != 0) return embed_rows<V, uint8_t>(args, begin, end);
    if (args.zero_row != 0) return embed_rows<V, typename V::Input>(args, begin, end);
    embed_rows<V, typename V::Element>(args, begin, end);
}

}  // namespace
}  // namespace spade

#endif
