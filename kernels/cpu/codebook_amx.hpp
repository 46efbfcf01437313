// The codebook GEMM on AMX tiles: (a, b) of every distinct patch, from the hidden rows of its taps; bf16, summed in
// float32.
//
//   entries[u] = bias + sum over taps, k of actv[patches[u][tap]][k] * weight[tap][k]
//
// Every entry sums in this one order. One form only: products by tap, which the other tiers can gather and add, cost
// more to store and to read again than these tiles take to make them twice.
//
// Layout: the rows of a group are gathered as the tiles read them, [row / 32][tap][hidden block][32 rows][32]. Weights
// in panels of 32 columns, a and b of a block one after the other. Tile, blocking and fused: see amx.hpp.
//
// Blocking: a group is gathered once for all panels that pass over it. It stays in the second-level cache, as do the
// two panels of a block. Gathering the next group between the products instead costs more than it hides.
//
// Operations: 2 * taps * SPADE_HIDDEN an entry and column. Bytes: a group and the weights once per group.
#ifndef SPADE_CODEBOOK_AMX_HPP
#define SPADE_CODEBOOK_AMX_HPP

#include <cstdint>

#include "amx.hpp"
#include "spade_kernels.h"
#include "units.hpp"

namespace spade {
namespace {

struct CodebookAmx {
    static constexpr int64_t hidden_blocks = SPADE_HIDDEN / amx_block;

    // ---- Packed weights: [block][a, b][tap][hidden block][2][16 pairs][16 columns][2] ----

    static void pack(const float* weight, int64_t taps, int64_t channels, void* packed) {
        auto* to = static_cast<bf16*>(packed);
        for (int64_t block = 0; block < (channels + 31) / 32; ++block)
            for (int64_t b = 0; b < 2; ++b)
                for (int64_t k = 0; k < taps * SPADE_HIDDEN; k += amx_block, to += amx_step)
                    amx_pack_step(
                        [&](int64_t column, int64_t row) {
                            const int64_t channel = block * 32 + column;
                            return channel < channels ? weight[((k + row) * 2 + b) * channels + channel] : 0.0f;
                        },
                        to);
    }

    // ---- One group of rows ----

    // Rows behind the last repeat it: nobody reads their products.
    static void gather(const spade_codebook& args, int64_t first, int64_t count, bf16* to) {
        const auto* actv = static_cast<const bf16*>(args.actv);
        for (int64_t row = 0; row < count; row += 32)
            for (int64_t tap = 0; tap < args.taps; ++tap) {
                const bf16* from[32];
                for (int64_t r = 0; r < 32; ++r) {
                    const int64_t patch = first + (row + r < count ? row + r : count - 1);
                    from[r] = actv + static_cast<int64_t>(args.patches[patch * args.taps + tap]) * SPADE_HIDDEN;
                }
                for (int64_t channel = 0; channel < SPADE_HIDDEN; channel += amx_block)
                    for (int64_t r = 0; r < 32; ++r, to += amx_block)
                        _mm512_store_si512(to, _mm512_loadu_si512(from[r] + channel));
            }
    }

    static void multiply(const spade_codebook& args, int64_t block, int64_t first, int64_t count,
                         const bf16* gathered) {
        const int64_t blocks = args.taps * hidden_blocks;
        const bf16* weight = static_cast<const bf16*>(args.weight) + block * 2 * blocks * amx_step;
        const bool far = codebook_amx_far(args.blocks);
        const bf16* next = far && block + 1 < args.blocks ? weight + 2 * blocks * amx_step : nullptr;
        const float* bias = args.bias + block * codebook_columns;
        const AmxPanels panels{{weight, blocks, amx_step}, {}, next, bias, 2, 4, amx_block, codebook_columns, 0};
        auto* entries = static_cast<half*>(args.entries) + (block * args.entry_rows + first) * codebook_columns;
        const auto place_of = [&](int64_t i) {
            AmxPlace place{};
            for (int run = 0; run < 2; ++run) {
                const int64_t row = i * 32 + run * 16, rest = count - row;
                place.x[run].of_ky[0] = gathered + i * blocks * amx_step + run * amx_step / 2;
                place.y[run] = entries + row * codebook_columns;
                place.count[run] = rest < 0 ? 0 : rest < 16 ? rest : 16;
            }
            return place;
        };
        auto nothing = [] {};
        AmxPass<false, decltype(nothing)>(panels, nothing).run<1>((count + 31) / 32, place_of);
    }

    // A unit is a block of columns of one group: group * blocks + block.
    static void run(const spade_codebook& args, int64_t begin, int64_t end, void* scratch) {
        const int64_t rows = codebook_amx_rows(args.blocks);
        auto* gathered = static_cast<bf16*>(scratch);
        const Tiles tiles;
        int64_t at = -1;  // the group that is gathered
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t group = unit / args.blocks, first = group * rows;
            const int64_t count = args.rows - first < rows ? args.rows - first : rows;
            if (group != at) gather(args, first, count, gathered);
            at = group;
            multiply(args, unit % args.blocks, first, count, gathered);
        }
    }
};

}  // namespace
}  // namespace spade

#endif
