// AMX tile registers: configuration, packed weights, and products of 32 pixels (or rows) x 32 columns.
//
// A tile register is 16 rows of 64 bytes. Four of them hold the sums of 2 runs of up to 16 pixels x 32 columns. One
// step loads two tiles of pixels and two tiles of weights and makes four products: every loaded tile is used twice.
//
// bf16 products sum in float32. int8 products (bytes x int8) sum in int32; one step then reads the same bytes and has
// twice the terms. Pointers to pixels and weights are of bf16 in both cases, so they count 2 bytes.
//
// Include only where -mamx-tile, -mamx-bf16 and -mamx-int8 are given.
#ifndef SPADE_AMX_TILES_HPP
#define SPADE_AMX_TILES_HPP

#include <immintrin.h>

#include <cstdint>

#include "cpu/isa/bf16.hpp"

namespace spade {
namespace {

// Keeps every earlier write to `memory` before the tile instructions that follow: the compiler does not know that tile
// instructions read memory.
inline void amx_publish(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// Configures the tile registers for one scope: sums 0 1 (first run of pixels) and 2 3 (second run), pixels 4 5, weights
// 6 7. Tile instructions take register numbers as literals only. The destructor releases the tiles, because a thread
// that holds tiles is slower to switch.
class Tiles {
 public:
    explicit Tiles(int64_t pixels = amx_pixels) { configure(pixels); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
    ~Tiles() { _tile_release(); }

    static constexpr int64_t amx_pixels = 16;  // largest run of pixels: the rows of a tile

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

constexpr int64_t amx_block = 32;                    // channels of a pixel in one tile row; also columns of a panel
constexpr int64_t amx_step = amx_block * amx_block;  // bf16 weights of one step: one tap of one block
constexpr int64_t amx_run_sums = Tiles::amx_pixels * amx_block;  // sums of one run

// A weight as it is packed: float32 is rounded to bf16, int8 stays.
inline bf16 amx_packed(float weight) { return to_bf16(weight); }
inline int8_t amx_packed(int8_t weight) { return weight; }

// amx_together: consecutive terms of one column that share 4 bytes. amx_depth: terms of a step, which fill a tile row.
template <typename Packed>
constexpr int64_t amx_together = 4 / sizeof(Packed);
template <typename Packed>
constexpr int64_t amx_depth = 16 * amx_together<Packed>;

// Packs the weights of one step as [2 halves of the columns][16][16 columns][together]. weight(column, term) must give
// 0 for unused columns and terms.
template <typename Packed, typename Weight>
inline void amx_pack_step(Weight weight, Packed* to) {
    constexpr int64_t together = amx_together<Packed>;
    for (int64_t half = 0; half < amx_block; half += 16)
        for (int64_t term = 0; term < amx_depth<Packed>; term += together)
            for (int64_t column = half; column < half + 16; ++column)
                for (int64_t i = 0; i < together; ++i) *to++ = amx_packed(weight(column, term + i));
}

// Multiplies two tile registers and adds to a third. The register numbers must be literals.
#define SPADE_AMX_PRODUCT(sums, pixels, weights) \
    if constexpr (Int8)                          \
        _tile_dpbusd(sums, pixels, weights);     \
    else                                         \
        _tile_dpbf16ps(sums, pixels, weights)

// One step: multiplies two tiles of pixels with two tiles of weights, four products.
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

// What the first step of a tile does with the sums in the registers: store the sums of the tile before, and load its
// own. One register is exchanged between two products, so that no product waits for the last store.
struct AmxExchange {
    float* before;     // where the sums of the tile before go
    const float* now;  // where this tile's sums come from; null: they start from zero
};

// One step, as amx_products, that exchanges the sums in the registers as well.
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

// Stores the four tiles of sums.
inline void amx_store(float* sums) {
    constexpr int64_t stride = amx_block * sizeof(float);
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + 16, stride);
    _tile_stored(2, sums + amx_run_sums, stride);
    _tile_stored(3, sums + amx_run_sums + 16, stride);
    amx_publish(sums);
}

}  // namespace
}  // namespace spade

#endif
