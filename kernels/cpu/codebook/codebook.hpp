// The codebook GEMM: (a, b) of every distinct patch, from the hidden rows of its taps.
//
//   entries[u] = bias + sum over taps of (actv[patches[u][tap]] x weight[tap])
//
// Tile: 6 rows of actv, each at its own pointer, times 4 (avx512) or 2 (avx2) vectors of columns. A loaded weight
// vector serves all rows and a broadcast serves all columns; the sums stay in registers for the whole tap. Registers: 6
// x 4 sums, 4 weights and 1 broadcast of 32 (avx512), or 6 x 2, 2 and 1 of 16 (avx2). Gathered rows are read in place
// through six pointers, which fit the general registers, so no row is copied.
//
// Layout: weights are packed as [block][tap][64 / columns][SPADE_HIDDEN / depth][columns][depth]; 64 columns are 32 of
// a and 32 of b. The panel of one block stays in the second-level cache while its rows pass under it; one tap's tile
// column stays in the first-level cache.
//
// Forms: gathered multiplies rows * taps rows. Per tap multiplies actv_rows * taps rows into scratch and adds gathered
// rows of products. Both forms sum the products of a tap first, with the same code, so they give the same bits.
//
// Fused: the gather, the bias, the rounding.
#ifndef SPADE_CODEBOOK_HPP
#define SPADE_CODEBOOK_HPP

#include <cstdint>

#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

constexpr int codebook_tile_rows = 6;

template <typename V>
struct CodebookTile {
    static constexpr int vectors = V::registers == 32 ? 4 : 2;
    static constexpr int columns = vectors * V::width;
    static constexpr int64_t panel = SPADE_HIDDEN * columns;  // weights of one tap of one tile column
};

// Multiplies Rows rows with a panel: products[row][column] = rows[row] x panel, or += if Add. `stride`: floats from one
// row of products to the next.
template <typename V, int Rows, bool Add>
inline void multiply_tile(const typename V::Element* const* rows, const typename V::Element* panel, float* products,
                          int64_t stride) {
    using Tile = CodebookTile<V>;
    typename V::F sum[Rows][Tile::vectors];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < Tile::vectors; ++c) sum[r][c] = V::zero();
    const typename V::Element* from[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) from[r] = rows[r];
    for (int64_t k = 0; k < SPADE_HIDDEN; k += V::depth) {
        typename V::Operand weight[Tile::vectors];
#pragma GCC unroll 4
        for (int c = 0; c < Tile::vectors; ++c)
            weight[c] = V::weights(panel + k * Tile::columns + c * V::width * V::depth);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const typename V::Operand x = V::broadcast(from[r] + k);
#pragma GCC unroll 4
            for (int c = 0; c < Tile::vectors; ++c) sum[r][c] = V::dot(x, weight[c], sum[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < Tile::vectors; ++c) {
            float* to = products + r * stride + c * V::width;
            V::store_f32(to, Add ? V::add(V::load_f32(to), sum[r][c]) : sum[r][c]);
        }
}

// multiply_tile for a count of rows that is known at run time, 1 .. 6.
template <typename V, bool Add>
inline void multiply_rows(int64_t count, const typename V::Element* const* rows, const typename V::Element* panel,
                          float* products, int64_t stride) {
    switch (count) {
        case 6:
            return multiply_tile<V, 6, Add>(rows, panel, products, stride);
        case 5:
            return multiply_tile<V, 5, Add>(rows, panel, products, stride);
        case 4:
            return multiply_tile<V, 4, Add>(rows, panel, products, stride);
        case 3:
            return multiply_tile<V, 3, Add>(rows, panel, products, stride);
        case 2:
            return multiply_tile<V, 2, Add>(rows, panel, products, stride);
        default:
            return multiply_tile<V, 1, Add>(rows, panel, products, stride);
    }
}

template <typename V>
inline const typename V::Element* block_weight(const spade_codebook& args, int64_t block) {
    return static_cast<const typename V::Element*>(args.weight) + block * args.taps * SPADE_HIDDEN * codebook_columns;
}

template <typename V>
inline typename V::Element* entry_of(const spade_codebook& args, int64_t row, int64_t block) {
    return static_cast<typename V::Element*>(args.entries) + (block * args.entry_rows + row) * codebook_columns;
}

template <typename V>
inline void store_entry(const spade_codebook& args, int64_t row, int64_t block, const float* sums) {
    auto* to = entry_of<V>(args, row, block);
    for (int64_t i = 0; i < codebook_columns; i += V::width) V::store(to + i, V::load_f32(sums + i));
}

// ---- Gathered ----

template <typename V>
void codebook_gathered(const spade_codebook& args, int64_t block, int64_t first, int64_t last) {
    using T = typename V::Element;
    using Tile = CodebookTile<V>;
    const T* actv = static_cast<const T*>(args.actv);
    const T* weight = block_weight<V>(args, block);
    const float* bias = args.bias + block * codebook_columns;
    alignas(64) float sums[codebook_item_rows * codebook_columns];
    for (int64_t row = first; row < last; ++row)
        for (int64_t i = 0; i < codebook_columns; i += V::width)
            V::store_f32(sums + (row - first) * codebook_columns + i, V::load_f32(bias + i));
    for (int64_t tap = 0; tap < args.taps; ++tap)
        for (int64_t column = 0; column < codebook_columns; column += Tile::columns, weight += Tile::panel)
            for (int64_t row = first; row < last; row += codebook_tile_rows) {
                const T* rows[codebook_tile_rows];
                const int64_t count = last - row < codebook_tile_rows ? last - row : codebook_tile_rows;
                for (int64_t r = 0; r < count; ++r)
                    rows[r] = actv + static_cast<int64_t>(args.patches[(row + r) * args.taps + tap]) * SPADE_HIDDEN;
                multiply_rows<V, true>(count, rows, weight, sums + (row - first) * codebook_columns + column,
                                       codebook_columns);
            }
    for (int64_t row = first; row < last; ++row)
        store_entry<V>(args, row, block, sums + (row - first) * codebook_columns);
}

// ---- Per tap ----
//
// Patches and hidden rows are numbered in scan order, so the next 96 patches read few rows that earlier patches have
// not read. Products are made just before the patches need them, and most are still in the second-level cache then.

// Makes the products of rows first .. last - 1 of actv: products[tap][row][column].
template <typename V>
void codebook_products(const spade_codebook& args, int64_t block, int64_t first, int64_t last, float* products) {
    using T = typename V::Element;
    using Tile = CodebookTile<V>;
    const T* actv = static_cast<const T*>(args.actv);
    const T* weight = block_weight<V>(args, block);
    for (int64_t tap = 0; tap < args.taps; ++tap, products += args.actv_rows * codebook_columns)
        for (int64_t column = 0; column < codebook_columns; column += Tile::columns, weight += Tile::panel)
            for (int64_t row = first; row < last; row += codebook_tile_rows) {
                const T* rows[codebook_tile_rows];
                const int64_t count = last - row < codebook_tile_rows ? last - row : codebook_tile_rows;
                for (int64_t r = 0; r < count; ++r) rows[r] = actv + (row + r) * SPADE_HIDDEN;
                multiply_rows<V, false>(count, rows, weight, products + row * codebook_columns + column,
                                        codebook_columns);
            }
}

// Adds the bias and the gathered products of patches first .. last - 1, and stores their entries.
template <typename V>
void codebook_sum(const spade_codebook& args, int64_t block, int64_t first, int64_t last, const float* products) {
    constexpr int vectors = codebook_columns / V::width;
    const float* bias = args.bias + block * codebook_columns;
    const int64_t taps = args.taps, tap_stride = args.actv_rows * codebook_columns;
    auto* out = entry_of<V>(args, first, block);
    const int32_t* patch = args.patches + first * taps;
    for (int64_t row = first; row < last; ++row, patch += taps, out += codebook_columns) {
        typename V::F sum[vectors];
        for (int i = 0; i < vectors; ++i) sum[i] = V::load_f32(bias + i * V::width);
        for (int64_t tap = 0; tap < taps; ++tap) {
            const float* from = products + tap * tap_stride + patch[tap] * codebook_columns;
            for (int i = 0; i < vectors; ++i) sum[i] = V::add(sum[i], V::load_f32(from + i * V::width));
        }
        for (int i = 0; i < vectors; ++i) V::store(out + i * V::width, sum[i]);
    }
}

// Returns one more than the highest row of actv that the patches read, except the row `outside`.
inline int64_t rows_needed(const int32_t* patches, int64_t count, int32_t outside) {
    int32_t needed = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int32_t row = patches[i] == outside ? 0 : patches[i] + 1;
        needed = row > needed ? row : needed;
    }
    return needed;
}

template <typename V>
void codebook_per_tap(const spade_codebook& args, int64_t block, float* products) {
    // The row "outside the image" is the last row, and any patch may read it, so its products are made first.
    const int64_t outside = args.actv_rows - 1;
    codebook_products<V>(args, block, outside, args.actv_rows, products);
    int64_t made = 0;
    for (int64_t first = 0; first < args.rows; first += codebook_item_rows) {
        const int64_t last = first + codebook_item_rows < args.rows ? first + codebook_item_rows : args.rows;
        const int64_t needed =
            rows_needed(args.patches + first * args.taps, (last - first) * args.taps, static_cast<int32_t>(outside));
        if (needed > made) {
            const int64_t whole = (needed + codebook_item_rows - 1) / codebook_item_rows * codebook_item_rows;
            const int64_t to = whole < outside ? whole : outside;
            codebook_products<V>(args, block, made, to, products);
            made = to;
        }
        codebook_sum<V>(args, block, first, last, products);
    }
}

template <typename V>
void codebook(const spade_codebook& args, int64_t begin, int64_t end, void* scratch) {
    if (args.form == SPADE_CODEBOOK_PER_TAP) {
        for (int64_t block = begin; block < end; ++block)
            codebook_per_tap<V>(args, block, static_cast<float*>(scratch));
        return;
    }
    const int64_t groups = (args.rows + codebook_item_rows - 1) / codebook_item_rows;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item % groups * codebook_item_rows;
        const int64_t last = first + codebook_item_rows < args.rows ? first + codebook_item_rows : args.rows;
        codebook_gathered<V>(args, item / groups, first, last);
    }
}

// ---- Packing ----

template <typename V>
void codebook_pack(const float* weight, int64_t taps, int64_t channels, void* packed) {
    using Tile = CodebookTile<V>;
    auto* out = static_cast<typename V::Element*>(packed);
    for (int64_t block = 0; block < (channels + 31) / 32; ++block)
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t first = 0; first < codebook_columns; first += Tile::columns)
                for (int64_t k = 0; k < SPADE_HIDDEN; k += V::depth)
                    for (int64_t column = first; column < first + Tile::columns; ++column)
                        for (int64_t d = 0; d < V::depth; ++d) {
                            const int64_t channel = block * 32 + column % 32;
                            const float* row = weight + (tap * SPADE_HIDDEN + k + d) * 2 * channels;
                            *out++ = V::element(channel < channels ? row[column / 32 * channels + channel] : 0.0f);
                        }
}

}  // namespace
}  // namespace spade

#endif
