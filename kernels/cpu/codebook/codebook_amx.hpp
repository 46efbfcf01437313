// The codebook GEMM on AMX tiles: (a, b) of every distinct patch, from the hidden rows of its taps; bf16, summed in
// float32.
//
//   entries[u] = bias + sum over taps, k of actv[patches[u][tap]][k] * weight[tap][k]
//
// Every entry sums in this one order. AMX has the gathered form only: the tiles make a product twice in less time than
// the per-tap form needs to store the product and read it again.
//
// int8: actv is bytes and weight int8; sums are exact in int32 and scaled at the end. This halves the time of the
// products and the bytes of the weights. A patch whose symbols are all the same takes its entry from a table.
//
// Layout: the rows of a group are gathered in the order that the tiles read, [row / 32][tap][hidden block][32 rows]
// [64 bytes]. Weights lie in panels of 32 columns; a block is the panel of a, then the panel of b. Tiles: amx_pass.hpp.
//
// Blocking: a group is gathered once and all panels pass over it. The group and the two panels of a block stay in the
// second-level cache. The cache lines of the entries are prefetched for writing between the products, because a store
// to a line out of cache would wait.
//
// Operations: 2 * taps * SPADE_HIDDEN per entry and column. Bytes: a group and the weights once per group.
#ifndef SPADE_CODEBOOK_AMX_HPP
#define SPADE_CODEBOOK_AMX_HPP

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/isa/amx_pass.hpp"
#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace spade {
namespace {

template <bool Int8>
struct CodebookAmx {
    using Weight = std::conditional_t<Int8, int8_t, float>;  // before packing
    using Packed = std::conditional_t<Int8, int8_t, bf16>;

    static constexpr int64_t depth = amx_depth<Packed>, hidden_blocks = SPADE_HIDDEN / depth;
    static constexpr int64_t line = 64;  // bytes of a tile row, and of a cache line

    // ---- Packed weights: [block][a, b][tap][hidden block][one step] ----

    static void pack(const Weight* weight, int64_t taps, int64_t channels, void* packed) {
        auto* to = static_cast<Packed*>(packed);
        for (int64_t first = 0; first < channels; first += 32)
            for (int64_t b = 0; b < 2; ++b)
                for (int64_t k = 0; k < taps * SPADE_HIDDEN; k += depth, to += depth * amx_block)
                    amx_pack_step(
                        [&](int64_t column, int64_t term) {
                            const int64_t channel = first + column;
                            return channel < channels ? weight[((k + term) * 2 + b) * channels + channel] : Weight{0};
                        },
                        to);
    }

    // ---- One group of rows ----

    // Gathers the rows of a group. Rows after the last one repeat it, and their products are discarded.
    static void gather(const spade_codebook& args, int64_t first, int64_t count, uint8_t* to) {
        constexpr int64_t row_bytes = hidden_blocks * line;
        const auto* actv = static_cast<const uint8_t*>(args.actv);
        for (int64_t row = 0; row < count; row += 32)
            for (int64_t tap = 0; tap < args.taps; ++tap) {
                const uint8_t* from[32];
                for (int64_t r = 0; r < 32; ++r) {
                    const int64_t patch = first + (row + r < count ? row + r : count - 1);
                    from[r] = actv + static_cast<int64_t>(args.patches[patch * args.taps + tap]) * row_bytes;
                }
                for (int64_t at = 0; at < row_bytes; at += line)
                    for (int64_t r = 0; r < 32; ++r, to += line)
                        _mm512_store_si512(to, _mm512_loadu_si512(from[r] + at));
            }
    }

    static half* entry_of(const spade_codebook& args, int64_t block, int64_t row) {
        return static_cast<half*>(args.entries) + (block * args.entry_rows + row) * codebook_columns;
    }

    // Computes the entries of one block for a gathered group.
    static void multiply(const spade_codebook& args, int64_t block, int64_t first, int64_t count,
                         const uint8_t* gathered) {
        const int64_t blocks = args.taps * hidden_blocks;
        const bf16* weight = static_cast<const bf16*>(args.weight) + block * 2 * blocks * amx_step;
        const bool far = codebook_amx_far(args.blocks);
        const bf16* next = far && block + 1 < args.blocks ? weight + 2 * blocks * amx_step : nullptr;
        const float* bias = args.bias + block * codebook_columns;
        const float* scale = Int8 ? args.scale + block * codebook_columns : nullptr;
        const AmxPanels panels{{weight, blocks, amx_step}, {}, next, bias, scale, 2, 6, amx_block, codebook_columns, 0};
        half* const entries = entry_of(args, block, first);
        const auto* rows = reinterpret_cast<const bf16*>(gathered);
        const auto place_of = [&](int64_t i) {
            AmxPlace place{};
            for (int run = 0; run < 2; ++run) {
                const int64_t row = i * 32 + run * 16, rest = count - row;
                place.x[run].of_ky[0] = rows + i * blocks * amx_step + run * amx_step / 2;
                place.y[run] = entries + row * codebook_columns;
                place.count[run] = rest < 0 ? 0 : rest < 16 ? rest : 16;
            }
            return place;
        };
        const int64_t tiles = (count + 31) / 32;
        AmxPieces lines;
        lines.spread(2 * count, tiles * 2 * blocks);
        const auto* coming = reinterpret_cast<const char*>(entries);
        auto prefetch_entries = [&] {
            lines.step([&] {
                __asm__ volatile("prefetchw %0" : : "m"(*coming));
                coming += line;
            });
        };
        AmxPass<false, decltype(prefetch_entries), Int8>(panels, prefetch_entries).template run<1>(tiles, place_of);
    }

    // ---- int8: patches whose symbols are all the same ----

    // The rows of a group that are such patches, and their symbols.
    struct Interior {
        int64_t count = 0;
        int32_t row[codebook_amx_most_rows], symbol[codebook_amx_most_rows];
    };

    static bool all_equal(const int32_t* values, int64_t count) {
        for (int64_t i = 1; i < count; ++i)
            if (values[i] != values[0]) return false;
        return true;
    }

    static void find_interior(const spade_codebook& args, int64_t first, int64_t count, Interior& of) {
        of.count = 0;
        for (int64_t row = 0; row < count; ++row) {
            const int32_t* patch = args.patches + (first + row) * args.taps;
            if (!all_equal(patch, args.taps) || *patch == args.actv_rows - 1) continue;
            const int32_t* window = args.windows + *patch * args.taps;
            if (!all_equal(window, args.taps) || *window >= args.symbols) continue;
            of.row[of.count] = static_cast<int32_t>(row), of.symbol[of.count] = *window;
            ++of.count;
        }
    }

    static void copy_interior(const spade_codebook& args, int64_t block, int64_t first, const Interior& of) {
        const half* table = static_cast<const half*>(args.interior) + block * args.symbols * codebook_columns;
        for (int64_t i = 0; i < of.count; ++i)
            std::memcpy(entry_of(args, block, first + of.row[i]), table + of.symbol[i] * codebook_columns,
                        codebook_columns * sizeof(half));
    }

    // ---- Work items ----

    // The header of a thread's scratch: which group it holds, since many ranges of a thread are of one group.
    struct alignas(64) Gathered {
        int64_t groups;  // number of the gathered group plus 1; 0: no group
        Interior interior;
    };
    static_assert(sizeof(Gathered) <= codebook_amx_header_bytes);

    // A work item is one block of columns of one group: group * blocks + block.
    static void run(const spade_codebook& args, int64_t begin, int64_t end, void* scratch) {
        const int64_t rows = codebook_amx_rows(args.blocks);
        auto* const header = static_cast<Gathered*>(scratch);
        auto* const gathered = static_cast<uint8_t*>(scratch) + codebook_amx_header_bytes;
        const Tiles tiles;
        for (int64_t item = begin; item < end; ++item) {
            const int64_t group = item / args.blocks, first = group * rows;
            const int64_t count = args.rows - first < rows ? args.rows - first : rows;
            if (header->groups != group + 1) {
                gather(args, first, count, gathered);
                if constexpr (Int8) find_interior(args, first, count, header->interior);
                header->groups = group + 1;
            }
            multiply(args, item % args.blocks, first, count, gathered);
            if constexpr (Int8) copy_interior(args, item % args.blocks, first, header->interior);
        }
    }
};

}  // namespace
}  // namespace spade

#endif
