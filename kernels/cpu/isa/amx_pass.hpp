// Tiles that pass under panels of weights on AMX: the main loop of the convs and the codebook GEMM.
//
//   y[p, co] = bias[co] + sum over block, ky, kx, ci of x[p + (ky, kx), block, ci] * w[co, block, ky, kx, ci]
//              (+ sum over block, ci of s[p, block, ci] * v[co, block, ci]) (+ residual[p, co])
//
// Layout: 32 channels of a pixel are one row of a tile, and neighbouring pixels follow, so 16 pixels are one contiguous
// kilobyte for every tap. Weights lie in panels of 32 columns, in the order of the sum: two tiles a tap.
//
// Blocking: a group of tiles passes under one chunk of a panel at a time. The chunk stays in the first-level cache;
// between chunks the sums wait there too.
//
// Latency: the end of a tile (bias, residual and its upsampling, rounding) is computed between the products of the
// next tile, and so is other work that the caller passes as `beside`. The next panel is prefetched meanwhile.
//
// int8 products: x is bytes and w int8, a block is 64 channels, and the end of a tile scales the int32 sums.
//
// Include only where the flags of amx_tiles.hpp and vec_amx.hpp are given.
#ifndef SPADE_AMX_PASS_HPP
#define SPADE_AMX_PASS_HPP

#include <immintrin.h>

#include <cstdint>

#include "cpu/isa/amx_tiles.hpp"
#include "cpu/isa/vec_amx.hpp"

namespace spade {
namespace {

// One map to sum over: blocks of channels under K x K taps, and the weights for them.
struct AmxTerm {
    const bf16* weight;    // of the first panel
    int64_t blocks;        // blocks of channels of x
    int64_t block_stride;  // elements of x from one block to the next
};

// The arguments that all tiles of a pass share. The pass has one panel of weights, or two that follow in memory.
struct AmxPanels {
    AmxTerm term;
    AmxTerm shortcut;         // a second map to add, under one tap; blocks = 0: none
    const bf16* next_weight;  // the panel that follows in memory, to be prefetched; or null
    const float* bias;        // [count][32]
    const float* scale;       // [count][32], for int8 products
    int64_t count;            // panels: 1 or 2
    int64_t chunk;            // steps of a panel that fit the first-level cache beside the sums of a group
    int64_t panel_stride;     // elements of y from one panel's columns to the next
    int64_t pixel_stride;     // elements of y from one pixel to the next
    int64_t residual_shift;   // the residual is read at column >> residual_shift
};

// Where a run of pixels reads x: for each ky, the pixel at kx = 0 in block 0.
struct AmxLines {
    const bf16* of_ky[3];
};

// The pixels of one tile: two runs. Without a second run, run 1 repeats run 0 and has count 0.
struct AmxPlace {
    AmxLines x[2];
    AmxLines shortcut[2];     // where the runs read the shortcut's map
    half* y[2];               // the first pixel's result
    const half* residual[2];  // column 0 of the residual's line; or null
    int64_t column;           // column of the first pixel
    int64_t count[2];         // pixels of each run
};

// A tile whose sums are complete and still need bias, scale, residual, rounding and a store to y.
template <bool Int8>
struct AmxWaiting {
    const float* sums = nullptr;  // [2 runs][16 pixels][32]; int32 for int8 products
    const float* bias = nullptr;
    const float* scale = nullptr;
    half* y[2] = {};
    AmxPlace place{};
    int64_t done = 0, pixels = 0;  // pixels finished, and pixels of the tile

    // Finishes the next run of pixels.
    void finish_run(int64_t pixel_stride, int64_t residual_shift) {
        const int run = done < place.count[0] ? 0 : 1;
        done += place.count[run];
        const __m512 bias_low = _mm512_loadu_ps(bias), bias_high = _mm512_loadu_ps(bias + 16);
        [[maybe_unused]] __m512 scale_low{}, scale_high{};
        if constexpr (Int8) scale_low = _mm512_loadu_ps(scale), scale_high = _mm512_loadu_ps(scale + 16);
        const float* from = sums + run * amx_run_sums;
        half* to = y[run];
        const half* residual = place.residual[run];
        for (int64_t p = 0; p < place.count[run]; ++p, from += amx_block, to += pixel_stride) {
            __m512 low, high;
            if constexpr (Int8) {
                low = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from)), scale_low, bias_low);
                high = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from + 16)), scale_high, bias_high);
            } else {
                low = _mm512_add_ps(_mm512_load_ps(from), bias_low);
                high = _mm512_add_ps(_mm512_load_ps(from + 16), bias_high);
            }
            if (residual != nullptr) {
                const half* of_pixel = residual + ((place.column + p) >> residual_shift) * amx_block;
                low = _mm512_add_ps(low, Amx::load(of_pixel));
                high = _mm512_add_ps(high, Amx::load(of_pixel + 16));
            }
            Amx::store(to, low);
            Amx::store(to + 16, high);
        }
    }
};

// Spreads pieces of other work evenly over a number of steps.
class AmxPieces {
 public:
    void spread(int64_t pieces, int64_t steps) { quota_ = (pieces * whole + steps - 1) / steps; }

    // Does the pieces that are due at this step.
    template <typename Piece>
    void step(Piece piece) {
        for (due_ += quota_; due_ >= whole; due_ -= whole) piece();
    }

 private:
    static constexpr int64_t whole = 1 << 16;
    int64_t quota_ = 0, due_ = 0;  // pieces a step, and pieces due; both times `whole`
};

// Passes tiles under panels of weights. `beside` is called after every step and may do other work there.
// Ahead: prefetch what the next tile reads of x, for maps whose lines are too far apart for the processor to foresee.
template <bool Ahead, typename Beside, bool Int8 = false>
class AmxPass {
 public:
    AmxPass(const AmxPanels& panels, Beside& beside) : panels_(panels), beside_(beside) {}

    // Computes tiles 0 .. count - 1; place_of(i) gives the place of tile i.
    template <int64_t K, typename PlaceOf>
    void run(int64_t count, PlaceOf place_of) {
        const AmxTerm& term = panels_.term;
        // One group of tiles reads a large panel once, so the panel is prefetched shortly before its use. Otherwise the
        // next panel is prefetched into the second-level cache.
        const bool once = count <= most && panels_.count == 1 && term.blocks * K * K > few_steps;
        set_stream(once, count);
        const int64_t group = once ? count : usual;
        for (int64_t first = 0; first < count; first += group) {
            const int64_t size = count - first < group ? count - first : group;
            if (made_ != nullptr) last_place_ = *made_, made_ = &last_place_;
            for (int64_t i = 0; i < size; ++i) places_[i] = place_of(first + i);
            const bool both = panels_.shortcut.blocks > 0;
            if (once)
                halves<K>(term, size, !both);
            else
                pass<K>(term, 0, size, 0, term.blocks, false, !both);
            if (both) pass<1>(panels_.shortcut, 0, size, 0, panels_.shortcut.blocks, true, true);
        }
        amx_store(before_);
        exchanged();
        finish();
    }

 private:
    static constexpr int64_t most = 8, usual = 2;  // tiles of a group
    static constexpr int64_t few_steps = 64;       // a panel of more steps is large

    // Sets what `between` prefetches into the second-level cache.
    void set_stream(bool once, int64_t count) {
        constexpr int64_t step_bytes = amx_step * static_cast<int64_t>(sizeof(bf16)), shortly = 48 << 10;
        if (panels_.next_weight == nullptr) return;
        const auto* now = reinterpret_cast<const char*>(panels_.term.weight);
        stream_ = once ? now + shortly : reinterpret_cast<const char*>(panels_.next_weight);
        lines_of_step_ = (step_bytes / 64 + count - 1) / count;
    }

    // Passes a group of tiles in two halves, some blocks at a time. The sums of one half stay in the first-level cache
    // beside a chunk of the panel. The second half finds the same blocks of the panel in the second-level cache.
    template <int64_t K>
    void halves(const AmxTerm& term, int64_t size, bool is_last) {
        constexpr int64_t at_a_time = 36 / (K * K), half_of_most = most / 2;
        const int64_t half = size > half_of_most ? size / 2 : size;
        for (int64_t block = 0; block < term.blocks; block += at_a_time) {
            const int64_t stop = block + at_a_time < term.blocks ? block + at_a_time : term.blocks;
            pass<K>(term, 0, half, block, stop, false, is_last);
            if (half < size) pass<K>(term, half, size, block, stop, false, is_last);
        }
    }

    // Passes tiles first .. size - 1 of a group under blocks block .. stop - 1 of a term, chunk by chunk. Every second
    // tile takes the panels in reverse, so that it starts with the panel that is in the first-level cache.
    template <int64_t K>
    void pass(const AmxTerm& term, int64_t first, int64_t size, int64_t block, int64_t stop, bool is_shortcut,
              bool is_last) {
        const int64_t chunk = panels_.chunk / (K * K);
        for (; block < stop; block += chunk) {
            const int64_t block_end = block + chunk < stop ? block + chunk : stop;
            const bool starts = block == 0 && !is_shortcut, last = is_last && block_end == term.blocks;
            for (int64_t i = first; i < size; ++i)
                for (int64_t j = 0; j < panels_.count; ++j) {
                    const int64_t panel = i % 2 == 0 ? j : panels_.count - 1 - j;
                    float* sums = sums_[i * panels_.count + panel];
                    const AmxLines* x = is_shortcut ? places_[i].shortcut : places_[i].x;
                    const bool more = i + 1 < size;
                    const AmxLines& ahead = places_[more ? i + 1 : first].x[1];
                    const int64_t ahead_at = (more ? block : block_end) * term.block_stride;
                    multiply<K>(term, x, panel, block, block_end, starts ? nullptr : sums, ahead, ahead_at);
                    finish();
                    before_ = sums;
                    made_ = last ? &places_[i] : nullptr;
                    made_panel_ = panel;
                }
        }
    }

    // Adds blocks block .. block_end - 1 of a term to the sums `now`, or to zero if `now` is null. The first step
    // exchanges the sums in the registers. `ahead` and `ahead_at`: where the next tile's second run reads x.
    template <int64_t K>
    void multiply(const AmxTerm& term, const AmxLines* x, int64_t panel, int64_t block, int64_t block_end,
                  const float* now, const AmxLines& ahead, int64_t ahead_at) {
        // The next tile reads a run and its border under every ky. Its first line is in cache: this tile reads it too.
        constexpr int64_t ahead_pixels = (Tiles::amx_pixels + K - 1) / K;
        const bf16* weight = term.weight + (panel * term.blocks + block) * K * K * amx_step;
        bool exchange = true;
        for (int64_t at = block * term.block_stride; block < block_end;
             ++block, at += term.block_stride, ahead_at += term.block_stride)
            for (int64_t ky = 0; ky < K; ++ky) {
                const bf16 *first = x[0].of_ky[ky] + at, *second = x[1].of_ky[ky] + at;
#pragma GCC unroll 3
                for (int64_t kx = 0; kx < K; ++kx, weight += amx_step) {
                    if (kx == 0 && exchange) {
                        amx_products_after<Int8>({before_, now}, first, second, weight);
                        exchange = false;
                        exchanged();
                    } else {
                        amx_products<Int8>(first + kx * amx_block, second + kx * amx_block, weight);
                    }
#pragma GCC unroll 16
                    for (int64_t i = 0; Ahead && K == 3 && i < ahead_pixels; ++i)
                        __builtin_prefetch(ahead.of_ky[ky] + ahead_at + (kx * ahead_pixels + i) * amx_block);
                    between();
                }
            }
    }

    // Hands the tile whose sums were just stored to waiting_.
    void exchanged() {
        if (made_ == nullptr) return;
        waiting_.sums = before_, waiting_.place = *made_, waiting_.done = 0;
        waiting_.bias = panels_.bias + made_panel_ * amx_block;
        if constexpr (Int8) waiting_.scale = panels_.scale + made_panel_ * amx_block;
        for (int run = 0; run < 2; ++run) waiting_.y[run] = made_->y[run] + made_panel_ * panels_.panel_stride;
        waiting_.pixels = made_->count[0] + made_->count[1];
    }

    // Work after each step: prefetches, finishes a run of the waiting tile, and calls beside.
    void between() {
        for (int64_t i = 0; i < lines_of_step_; ++i, stream_ += 64) __builtin_prefetch(stream_, 0, 2);
        if (waiting_.done < waiting_.pixels) finish_run();
        beside_();
    }

    void finish_run() { waiting_.finish_run(panels_.pixel_stride, panels_.residual_shift); }
    void finish() {
        while (waiting_.done < waiting_.pixels) finish_run();
    }

    const AmxPanels& panels_;
    Beside& beside_;
    const char* stream_ = nullptr;  // the next cache line to prefetch
    int64_t lines_of_step_ = 0;     // cache lines to prefetch after each step
    AmxPlace places_[most], last_place_;
    alignas(64) float sums_[most + 1][2 * amx_run_sums];  // the last is a dummy that no tile uses
    float* before_ = sums_[most];                         // where the sums in the registers are stored
    const AmxPlace* made_ = nullptr;  // the tile of the sums in the registers if they are complete, else null
    int64_t made_panel_ = 0;          // the panel of these sums
    AmxWaiting<Int8> waiting_;
};

}  // namespace
}  // namespace spade

#endif
