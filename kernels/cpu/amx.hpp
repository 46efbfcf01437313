// Products on AMX tiles: 32 pixels (or rows) x 32 columns, bf16 summed in float32.
//
//   y[p, co] = bias[co] + sum over block, ky, kx, ci of x[p + (ky, kx), block, ci] * w[co, block, ky, kx, ci]
//              (+ sum over block, ci of s[p, block, ci] * v[co, block, ci]) (+ residual[p, co])
//
// Layout: 32 channels of a pixel are one row of a tile and its neighbours follow, so 16 pixels are one contiguous
// kilobyte for every tap. Weights lie in panels of 32 columns, in the order of the sum: two tiles a tap.
//
// Tile: two runs of up to 16 pixels x 32 columns, four tiles of sums; a step loads two tiles of pixels and two of
// weights and makes four products.
//
// Blocking: a group of tiles passes under a chunk of the panel, about nine steps, which stays in the first-level cache;
// between chunks the sums wait there too. Prefetched meanwhile: the next panel, into the second-level cache, and, if
// Ahead, what the next tile reads of x where its lines are too far apart for the processor to foresee.
//
// Fused: bias, residual, its upsampling, rounding; the end of one tile is made during the products of the next.
//
// Include only where -mamx-tile, -mamx-bf16 and the flags of avx512bf16 are given.
#ifndef SPADE_AMX_HPP
#define SPADE_AMX_HPP

#include <immintrin.h>

#include <cstdint>

#include "vec_avx512bf16.hpp"

namespace spade {
namespace {

// The compiler's tile instructions do not say that they read memory: what was written before stays before them.
inline void amx_publish(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// The configuration of the tile registers, whose numbers must be literals: sums 0 1 (first run) and 2 3 (second),
// pixels 4 5, weights 6 7. Released at the end of the scope, since a thread that holds tiles is slower to switch.
class Tiles {
 public:
    explicit Tiles(int64_t pixels = amx_pixels) { configure(pixels); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
    ~Tiles() { _tile_release(); }

    static constexpr int64_t amx_pixels = 16;  // of a run, at most

    void configure(int64_t pixels) {
        if (pixels == pixels_) return;
        pixels_ = pixels;
        Configuration configuration;
        for (int tile = 0; tile < 8; ++tile) {
            configuration.bytes_of_row[tile] = 64;
            configuration.rows[tile] = static_cast<uint8_t>(tile < 6 ? pixels : 16);
        }
        amx_publish(&configuration);
        _tile_loadconfig(&configuration);
    }

 private:
    struct alignas(64) Configuration {
        uint8_t palette = 1;
        uint8_t start_row = 0;
        uint8_t reserved[14] = {};
        uint16_t bytes_of_row[16] = {};
        uint8_t rows[16] = {};
    };
    int64_t pixels_ = 0;
};

constexpr int64_t amx_block = 32;                    // channels of a pixel in a tile, and columns
constexpr int64_t amx_step = amx_block * amx_block;  // weights of one tap of one block
constexpr int64_t amx_run_sums = Tiles::amx_pixels * amx_block;

// Weights of one block and tap, [2][16 pairs][16 columns][2]; weight(column, channel) is 0 where there is none.
template <typename Weight>
inline void amx_pack_step(Weight weight, bf16* to) {
    for (int64_t half = 0; half < amx_block; half += 16)
        for (int64_t channel = 0; channel < amx_block; channel += 2)
            for (int64_t column = half; column < half + 16; ++column)
                for (int64_t odd = 0; odd < 2; ++odd) *to++ = to_bf16(weight(column, channel + odd));
}

// One term of the sum: a map of blocks of channels, under K x K taps.
struct AmxTerm {
    const bf16* weight;    // of the panel
    int64_t blocks;        // of x
    int64_t block_stride;  // elements of x, as the next
    int64_t row_stride;
};

// What all tiles under one panel share.
struct AmxPanel {
    AmxTerm term;
    AmxTerm shortcut;         // of one tap, from another map; no blocks: none
    const bf16* next_weight;  // of the panel that follows in memory, to be brought nearer meanwhile; or null
    const float* bias;
    int64_t pixel_stride;    // elements of y
    int64_t residual_shift;  // of the residual's columns
};

// The pixels of a tile, in two runs; without a second, it repeats the first and counts none.
struct AmxPlace {
    const bf16* x[2];         // at tap (0, 0) of block 0
    const bf16* shortcut[2];  // the same of the shortcut's map
    bf16* y[2];
    const bf16* residual[2];  // column 0 of the line that is read; or null
    int64_t column;
    int64_t count[2];
};

// A tile whose sums are made but not yet rounded and stored.
struct AmxWaiting {
    const float* sums = nullptr;  // [2][16 pixels][32]
    AmxPlace place{};
    int64_t done = 0, pixels = 0;

    void take(const float* made, const AmxPlace& of) {
        sums = made, place = of, done = 0, pixels = of.count[0] + of.count[1];
    }
    void finish_pixel(const AmxPanel& panel) {
        const int run = done < place.count[0] ? 0 : 1;
        const int64_t p = done++ - run * place.count[0];
        const float* from = sums + run * amx_run_sums + p * amx_block;
        __m512 low = _mm512_add_ps(_mm512_load_ps(from), _mm512_loadu_ps(panel.bias));
        __m512 high = _mm512_add_ps(_mm512_load_ps(from + 16), _mm512_loadu_ps(panel.bias + 16));
        if (place.residual[run] != nullptr) {
            const bf16* residual = place.residual[run] + ((place.column + p) >> panel.residual_shift) * amx_block;
            low = _mm512_add_ps(low, Avx512Bf16::load(residual));
            high = _mm512_add_ps(high, Avx512Bf16::load(residual + 16));
        }
        _mm512_storeu_si512(place.y[run] + p * panel.pixel_stride,
                            reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
    void finish_some(const AmxPanel& panel) {
        for (int i = 0; i < 4; ++i)
            if (done < pixels) finish_pixel(panel);
    }
    void finish(const AmxPanel& panel) {
        while (done < pixels) finish_pixel(panel);
    }
};

// One step: the products of two tiles of pixels and two of weights.
inline void amx_products(const bf16* first, const bf16* second, const bf16* weight) {
    _tile_loadd(6, weight, 64);
    _tile_loadd(4, first, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, weight + amx_step / 2, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, second, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// Whose sums a tile's first step stores, and where its own begin: each register changes hands between two products, so
// that the products do not wait for the last store.
struct AmxExchange {
    float* before;
    const float* now;  // or null: from zero
};

inline void amx_products_after(const AmxExchange& sums, const bf16* first, const bf16* second, const bf16* weight) {
    constexpr int64_t stride = amx_block * sizeof(float), half = 16;
    float* before = sums.before;
    const float* now = sums.now;
    _tile_loadd(6, weight, 64);
    _tile_loadd(4, first, 64);
    _tile_loadd(7, weight + amx_step / 2, 64);
    _tile_loadd(5, second, 64);
    if (now == nullptr) {
        _tile_stored(0, before, stride);
        _tile_zero(0);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stored(1, before + half, stride);
        _tile_zero(1);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stored(2, before + amx_run_sums, stride);
        _tile_zero(2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_stored(3, before + amx_run_sums + half, stride);
        _tile_zero(3);
        _tile_dpbf16ps(3, 5, 7);
    } else {
        _tile_stored(0, before, stride);
        _tile_loadd(0, now, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stored(1, before + half, stride);
        _tile_loadd(1, now + half, stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stored(2, before + amx_run_sums, stride);
        _tile_loadd(2, now + amx_run_sums, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_stored(3, before + amx_run_sums + half, stride);
        _tile_loadd(3, now + amx_run_sums + half, stride);
        _tile_dpbf16ps(3, 5, 7);
    }
    amx_publish(before);
}

inline void amx_store(float* sums) {
    constexpr int64_t stride = amx_block * sizeof(float);
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + 16, stride);
    _tile_stored(2, sums + amx_run_sums, stride);
    _tile_stored(3, sums + amx_run_sums + 16, stride);
    amx_publish(sums);
}

// Lines of 64 bytes to prefetch into the second-level cache, so many a step.
struct AmxStream {
    const char* next = nullptr;
    int64_t lines_of_step = 0;
    void advance() {
        for (int64_t i = 0; i < lines_of_step; ++i, next += 64) __builtin_prefetch(next, 0, 2);
    }
};

// Adds blocks block .. block_end - 1 of a term to the sums in the tile registers, which the first step exchanges if
// `sums` says so; then the tile before waits. `ahead`: what the next tile reads of x in the first of its blocks.
template <int64_t K, bool Ahead, typename Exchanged>
inline void amx_multiply(const AmxTerm& term, const bf16* const* x, int64_t block, int64_t block_end, const bf16* ahead,
                         const AmxExchange* sums, Exchanged exchanged, const AmxPanel& panel, AmxStream& stream,
                         AmxWaiting& waiting) {
    // Of each line the next tile reads a run and its border; its first line is one that this tile reads now.
    constexpr int64_t ahead_pixels = (Tiles::amx_pixels + K - 1) / K;
    const bf16* weight = term.weight + block * K * K * amx_step;
    for (; block < block_end; ++block, ahead += term.block_stride)
        for (int64_t ky = 0; ky < K; ++ky) {
            const int64_t at = block * term.block_stride + ky * term.row_stride;
            const bf16 *first = x[0] + at, *second = x[1] + at, *then = ahead + ky * term.row_stride;
#pragma GCC unroll 3
            for (int64_t kx = 0; kx < K; ++kx, weight += amx_step) {
                if (kx == 0 && sums != nullptr) {
                    amx_products_after(*sums, first, second, weight);
                    sums = nullptr;
                    exchanged();
                } else {
                    amx_products(first + kx * amx_block, second + kx * amx_block, weight);
                }
#pragma GCC unroll 16
                for (int64_t i = 0; Ahead && i < ahead_pixels; ++i)
                    __builtin_prefetch(then + (kx * ahead_pixels + i) * amx_block);
                stream.advance();
                waiting.finish_some(panel);
            }
        }
}

// All tiles under one panel: place_of(i) says where tile i lies.
template <int64_t K, bool Ahead, typename PlaceOf>
inline void amx_tiles(const AmxPanel& panel, int64_t count, PlaceOf place_of) {
    constexpr int64_t most = 8, usual = 2, steps = 9, few_steps = 64;
    alignas(64) float sums[most + 1][2 * amx_run_sums];
    const AmxTerm& term = panel.term;
    // A large panel that only one group reads need not wait in the second-level cache: it is fetched shortly before use.
    const bool once = count <= most && term.blocks * K * K > few_steps;
    const int64_t group = once ? count : usual, chunk = steps / (K * K);
    constexpr int64_t lines = amx_step * static_cast<int64_t>(sizeof(bf16)) / 64, shortly = 32 << 10;
    AmxStream stream;
    if (panel.next_weight != nullptr) {
        const bf16* far = once ? term.weight + shortly / static_cast<int64_t>(sizeof(bf16)) : panel.next_weight;
        stream = {reinterpret_cast<const char*>(far), (lines + count - 1) / count};
    }
    AmxWaiting waiting;
    float* before = sums[most];  // of no tile
    const AmxPlace* made = nullptr;  // the tile whose sums are in the registers and whole
    AmxPlace places[most], last_place;
    for (int64_t first = 0; first < count; first += group) {
        const int64_t size = count - first < group ? count - first : group;
        if (made != nullptr) last_place = *made, made = &last_place;
        for (int64_t i = 0; i < size; ++i) places[i] = place_of(first + i);
        for (int64_t block = 0; block < term.blocks; block += chunk) {
            const int64_t block_end = block + chunk < term.blocks ? block + chunk : term.blocks;
            for (int64_t i = 0; i < size; ++i) {
                const bool more = i + 1 < size, last = block_end == term.blocks;
                const bf16* ahead = places[more ? i + 1 : 0].x[1] + (more ? block : block_end) * term.block_stride;
                const AmxExchange exchange{before, block == 0 ? nullptr : sums[i]};
                const auto exchanged = [&] {
                    if (made != nullptr) waiting.take(before, *made);
                };
                amx_multiply<K, Ahead>(term, places[i].x, block, block_end, ahead, &exchange, exchanged, panel, stream,
                                       waiting);
                if (last && panel.shortcut.blocks > 0)
                    amx_multiply<1, false>(panel.shortcut, places[i].shortcut, 0, panel.shortcut.blocks,
                                           places[i].shortcut[0], nullptr, [] {}, panel, stream, waiting);
                waiting.finish(panel);
                before = sums[i];
                made = last ? &places[i] : nullptr;
            }
        }
    }
    if (made != nullptr) {
        amx_store(before);
        waiting.take(before, *made);
        waiting.finish(panel);
    }
}

}  // namespace
}  // namespace spade

#endif
