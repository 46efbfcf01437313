// Products on AMX tiles: 32 pixels (or rows) x 32 columns, bf16 summed in float32, what comes out float16.
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
// Blocking: two tiles pass under a chunk of the panel, or of two panels, of four to nine steps, which stays in the
// first-level cache; between chunks the sums wait there too. The registers change hands one by one between the first
// products of the next tile, which so need not wait for the last store. Prefetched meanwhile: the next panel, into the
// second-level cache, and, if Ahead, what the next tile reads of x where its lines are too far apart for the processor
// to foresee.
//
// Fused: bias, residual, its upsampling, rounding; the end of one tile is made during the products of the next, as is
// whatever the caller wants done beside them.
//
// The same serves int8 products, of bytes with int8, summed in int32: a step is of the same bytes and twice the terms.
// The end of a tile scales its sums then. What is said above of 32 channels holds for 64, with pointers to bf16 in
// units of two bytes.
//
// Include only where -mamx-tile, -mamx-bf16, -mamx-int8 and the flags of vec_amx.hpp are given.
#ifndef SPADE_AMX_HPP
#define SPADE_AMX_HPP

#include <immintrin.h>

#include <cstdint>

#include "cpu/isa/vec_amx.hpp"

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

// How weights lie: bf16 from float32, int8 as it is.
inline bf16 amx_packed(float weight) { return to_bf16(weight); }
inline int8_t amx_packed(int8_t weight) { return weight; }

// Weights of a column that lie side by side, and terms of a step, which are a row of a tile.
template <typename Packed>
constexpr int64_t amx_together = 4 / sizeof(Packed);
template <typename Packed>
constexpr int64_t amx_depth = 16 * amx_together<Packed>;

// Weights of one step, [2][16][16 columns][together]; weight(column, term) is 0 where there is none.
template <typename Packed, typename Weight>
inline void amx_pack_step(Weight weight, Packed* to) {
    constexpr int64_t together = amx_together<Packed>;
    for (int64_t half = 0; half < amx_block; half += 16)
        for (int64_t term = 0; term < amx_depth<Packed>; term += together)
            for (int64_t column = half; column < half + 16; ++column)
                for (int64_t i = 0; i < together; ++i) *to++ = amx_packed(weight(column, term + i));
}

// One term of the sum: a map of blocks of channels, under K x K taps.
struct AmxTerm {
    const bf16* weight;    // of the panel
    int64_t blocks;        // of x
    int64_t block_stride;  // elements of x
};

// What all tiles share that pass under one panel, or under two that follow each other.
struct AmxPanels {
    AmxTerm term;
    AmxTerm shortcut;         // of one tap, from another map; no blocks: none
    const bf16* next_weight;  // of the panel that follows in memory, to be brought nearer meanwhile; or null
    const float* bias;        // [count][32]
    const float* scale;       // [count][32], of int8 products
    int64_t count;
    int64_t chunk;         // steps of a panel that the first-level cache holds, with the sums of a group
    int64_t panel_stride;  // elements of y
    int64_t pixel_stride;
    int64_t residual_shift;  // of the residual's columns
};

// Where a run reads x, of block 0: the lines under its taps, at kx = 0.
struct AmxLines {
    const bf16* of_ky[3];
};

// The pixels of a tile, in two runs; without a second, it repeats the first and counts none.
struct AmxPlace {
    AmxLines x[2];
    AmxLines shortcut[2];  // the same of the shortcut's map
    half* y[2];
    const half* residual[2];  // column 0 of the line that is read; or null
    int64_t column;
    int64_t count[2];
};

// A tile whose sums are made but not yet rounded and stored.
template <bool Int8>
struct AmxWaiting {
    const float* sums = nullptr;  // [2][16 pixels][32]; of int8 products, int32
    const float* bias = nullptr;
    const float* scale = nullptr;
    half* y[2] = {};
    AmxPlace place{};
    int64_t done = 0, pixels = 0;

    // One run.
    void finish_some(int64_t pixel_stride, int64_t residual_shift) {
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

// One product of tiles, whose numbers must be literals.
#define SPADE_AMX_PRODUCT(sums, pixels, weights) \
    if constexpr (Int8)                          \
        _tile_dpbusd(sums, pixels, weights);     \
    else                                         \
        _tile_dpbf16ps(sums, pixels, weights)

// One step: the products of two tiles of pixels and two of weights.
template <bool Int8>
inline void amx_products(const bf16* first, const bf16* second, const bf16* weight) {
    _tile_loadd(6, weight, 64);
    _tile_loadd(4, first, 64);
    SPADE_AMX_PRODUCT(0, 4, 6);
    _tile_loadd(7, weight + amx_step / 2, 64);
    SPADE_AMX_PRODUCT(1, 4, 7);
    _tile_loadd(5, second, 64);
    SPADE_AMX_PRODUCT(2, 5, 6);
    SPADE_AMX_PRODUCT(3, 5, 7);
}

// Whose sums a tile's first step stores, and where its own begin: each register changes hands between two products, so
// that the products do not wait for the last store.
struct AmxExchange {
    float* before;
    const float* now;  // or null: from zero
};

template <bool Int8>
inline void amx_products_after(const AmxExchange& sums, const bf16* first, const bf16* second, const bf16* weight) {
    constexpr int64_t stride = amx_block * sizeof(float), half = 16;
    float* before = sums.before;
    const float* now = sums.now;
    if (now == nullptr) {
        _tile_loadd(6, weight, 64);
        _tile_loadd(4, first, 64);
        _tile_stored(0, before, stride);
        _tile_zero(0);
        SPADE_AMX_PRODUCT(0, 4, 6);
        _tile_loadd(7, weight + amx_step / 2, 64);
        _tile_stored(1, before + half, stride);
        _tile_zero(1);
        SPADE_AMX_PRODUCT(1, 4, 7);
        _tile_loadd(5, second, 64);
        _tile_stored(2, before + amx_run_sums, stride);
        _tile_zero(2);
        SPADE_AMX_PRODUCT(2, 5, 6);
        _tile_stored(3, before + amx_run_sums + half, stride);
        _tile_zero(3);
        SPADE_AMX_PRODUCT(3, 5, 7);
    } else {
        _tile_loadd(6, weight, 64);
        _tile_loadd(4, first, 64);
        _tile_stored(0, before, stride);
        _tile_loadd(0, now, stride);
        SPADE_AMX_PRODUCT(0, 4, 6);
        _tile_loadd(7, weight + amx_step / 2, 64);
        _tile_stored(1, before + half, stride);
        _tile_loadd(1, now + half, stride);
        SPADE_AMX_PRODUCT(1, 4, 7);
        _tile_loadd(5, second, 64);
        _tile_stored(2, before + amx_run_sums, stride);
        _tile_loadd(2, now + amx_run_sums, stride);
        SPADE_AMX_PRODUCT(2, 5, 6);
        _tile_stored(3, before + amx_run_sums + half, stride);
        _tile_loadd(3, now + amx_run_sums + half, stride);
        SPADE_AMX_PRODUCT(3, 5, 7);
    }
    amx_publish(before);
}

#undef SPADE_AMX_PRODUCT

inline void amx_store(float* sums) {
    constexpr int64_t stride = amx_block * sizeof(float);
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + 16, stride);
    _tile_stored(2, sums + amx_run_sums, stride);
    _tile_stored(3, sums + amx_run_sums + 16, stride);
    amx_publish(sums);
}

// Work that is done in pieces between the products of a number of steps.
class AmxPieces {
 public:
    void spread(int64_t pieces, int64_t steps) { quota_ = (pieces * whole + steps - 1) / steps; }

    // Those of one step.
    template <typename Piece>
    void step(Piece piece) {
        for (due_ += quota_; due_ >= whole; due_ -= whole) piece();
    }

 private:
    static constexpr int64_t whole = 1 << 16;
    int64_t quota_ = 0, due_ = 0;  // in units of 1 / whole
};

// Tiles that pass under panels of weights, and what is done between their products: `beside` is called every step.
template <bool Ahead, typename Beside, bool Int8 = false>
class AmxPass {
 public:
    AmxPass(const AmxPanels& panels, Beside& beside) : panels_(panels), beside_(beside) {}

    // All tiles: place_of(i) says where tile i lies.
    template <int64_t K, typename PlaceOf>
    void run(int64_t count, PlaceOf place_of) {
        const AmxTerm& term = panels_.term;
        // A large panel that only one group reads need not wait in the second-level cache: it is fetched shortly before
        // its use.
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
    static constexpr int64_t most = 8, usual = 2, few_steps = 64;

    void set_stream(bool once, int64_t count) {
        constexpr int64_t step_bytes = amx_step * static_cast<int64_t>(sizeof(bf16)), shortly = 48 << 10;
        if (panels_.next_weight == nullptr) return;
        const auto* now = reinterpret_cast<const char*>(panels_.term.weight);
        stream_ = once ? now + shortly : reinterpret_cast<const char*>(panels_.next_weight);
        lines_of_step_ = (step_bytes / 64 + count - 1) / count;
    }

    // A group of tiles in two halves, some blocks at a time: the sums of a half stay in the first-level cache, beside a
    // chunk of the panel, and the second half finds those blocks of the panel in the second-level cache.
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

    // Tiles first .. size - 1 of a group under blocks block .. stop - 1 of a term, chunk by chunk, under each panel in
    // turn: every second tile goes backwards, so that it finds the panel of the one before in the first-level cache.
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

    // Adds blocks block .. block_end - 1 of a term to the sums `now`, which the first step brings in; null: to zero.
    // `ahead`: the last line that the next tile reads under every ky, from `ahead_at` on.
    template <int64_t K>
    void multiply(const AmxTerm& term, const AmxLines* x, int64_t panel, int64_t block, int64_t block_end,
                  const float* now, const AmxLines& ahead, int64_t ahead_at) {
        // Of each line the next tile reads a run and its border; its first line is one that this tile reads now.
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

    void exchanged() {
        if (made_ == nullptr) return;
        waiting_.sums = before_, waiting_.place = *made_, waiting_.done = 0;
        waiting_.bias = panels_.bias + made_panel_ * amx_block;
        if constexpr (Int8) waiting_.scale = panels_.scale + made_panel_ * amx_block;
        for (int run = 0; run < 2; ++run) waiting_.y[run] = made_->y[run] + made_panel_ * panels_.panel_stride;
        waiting_.pixels = made_->count[0] + made_->count[1];
    }

    void between() {
        for (int64_t i = 0; i < lines_of_step_; ++i, stream_ += 64) __builtin_prefetch(stream_, 0, 2);
        if (waiting_.done < waiting_.pixels) finish_some();
        beside_();
    }

    void finish_some() { waiting_.finish_some(panels_.pixel_stride, panels_.residual_shift); }
    void finish() {
        while (waiting_.done < waiting_.pixels) finish_some();
    }

    const AmxPanels& panels_;
    Beside& beside_;
    const char* stream_ = nullptr;  // to prefetch into the second-level cache, so many lines a step
    int64_t lines_of_step_ = 0;
    AmxPlace places_[most], last_place_;
    alignas(64) float sums_[most + 1][2 * amx_run_sums];  // the last of no tile
    float* before_ = sums_[most];                         // where the sums in the registers belong
    const AmxPlace* made_ = nullptr;                      // their tile, once they are whole, and its panel
    int64_t made_panel_ = 0;
    AmxWaiting<Int8> waiting_;
};

}  // namespace
}  // namespace spade

#endif
