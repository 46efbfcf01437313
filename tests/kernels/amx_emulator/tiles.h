// The tile registers of AMX, one set a thread, and the tile instructions that the kernels use, as Intel's manual
// defines them (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2). Where the processor raises an
// exception, the process ends with a message. Rows of other than 64 bytes, which no kernel uses, end the process too.
#ifndef SPADE_EMULATOR_TILES_H
#define SPADE_EMULATOR_TILES_H

#include <immintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace amx_emulator {

constexpr int registers = 8, most_rows = 16, row_bytes = 64;

struct Tile {
    alignas(64) uint8_t row[most_rows][row_bytes];
};

struct State {
    int rows[registers];  // 0: the tile is not configured
    Tile tile[registers];
};

inline thread_local constinit State state{};

[[noreturn]] inline void fail(const char* instruction, const char* expected, int got) {
    std::fprintf(stderr, "[amx emulator] %s expected %s but got %d\n", instruction, expected, got);
    std::abort();
}

inline Tile& configured(const char* instruction, int number) {
    if (number < 0 || number >= registers || state.rows[number] == 0)
        fail(instruction, "a tile that is configured", number);
    return state.tile[number];
}

// ---- Configuration, loads and stores ----

// LDTILECFG: sets the shape of all tiles and zeroes them.
inline void load_configuration(const void* from) {
    uint8_t bytes[64];
    std::memcpy(bytes, from, sizeof bytes);
    if (bytes[0] != 1) fail("ldtilecfg", "palette 1", bytes[0]);
    for (int at = 1; at < 16; ++at)
        if (bytes[at] != 0) fail("ldtilecfg", "start row 0 and reserved bytes 0", bytes[at]);
    state = {};
    for (int number = 0; number < most_rows; ++number) {
        uint16_t columns;
        std::memcpy(&columns, bytes + 16 + 2 * number, sizeof columns);
        const int rows = bytes[48 + number];
        if (columns == 0 && rows == 0) continue;
        if (number >= registers) fail("ldtilecfg", "8 tiles", number + 1);
        if (columns != row_bytes) fail("ldtilecfg", "rows of 64 bytes", columns);
        if (rows < 1 || rows > most_rows) fail("ldtilecfg", "1 to 16 rows", rows);
        state.rows[number] = rows;
    }
}

// TILERELEASE.
inline void release() { state = {}; }

// TILELOADD: rows after the tile's last one become zero.
inline void load(int number, const void* from, int64_t stride_in_bytes) {
    Tile& tile = configured("tileloadd", number);
    tile = {};
    for (int row = 0; row < state.rows[number]; ++row)
        std::memcpy(tile.row[row], static_cast<const uint8_t*>(from) + row * stride_in_bytes, row_bytes);
}

// TILESTORED.
inline void store(int number, void* to, int64_t stride_in_bytes) {
    const Tile& tile = configured("tilestored", number);
    for (int row = 0; row < state.rows[number]; ++row)
        std::memcpy(static_cast<uint8_t*>(to) + row * stride_in_bytes, tile.row[row], row_bytes);
}

// TILEZERO.
inline void zero(int number) { configured("tilezero", number) = {}; }

// ---- Products ----

inline void check_product(const char* instruction, int sums, int a, int b) {
    for (int number : {sums, a, b}) configured(instruction, number);
    if (sums == a || sums == b || a == b) fail(instruction, "three different tiles", sums);
    if (state.rows[a] != state.rows[sums]) fail(instruction, "as many rows as the sums have", state.rows[a]);
    if (state.rows[b] != most_rows) fail(instruction, "16 rows of the second factor", state.rows[b]);
}

// Even and odd bf16 of a row as float32.
inline __m512 even(__m512i row) { return _mm512_castsi512_ps(_mm512_slli_epi32(row, 16)); }
inline __m512 odd(__m512i row) {
    return _mm512_castsi512_ps(_mm512_and_si512(row, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}

// The sums of TDPBF16PS under the MXCSR of its caller. Every column has two chains of fused multiply-adds, of the even
// and the odd terms, both from zero. Their sum is then added to the tile. Not inlined, so that the compiler moves no
// operation out of the caller's MXCSR.
[[gnu::noinline]] inline void bf16_sums(Tile& sums, const Tile& a, const Tile& b, int rows) {
    for (int m = 0; m < rows; ++m) {
        __m512 of_even = _mm512_setzero_ps(), of_odd = _mm512_setzero_ps();
        for (int k = 0; k < most_rows; ++k) {
            int32_t pair;
            std::memcpy(&pair, a.row[m] + 4 * k, sizeof pair);
            const __m512i factor = _mm512_set1_epi32(pair), row = _mm512_load_si512(b.row[k]);
            of_even = _mm512_fmadd_ps(even(factor), even(row), of_even);
            of_odd = _mm512_fmadd_ps(odd(factor), odd(row), of_odd);
        }
        const __m512 before = _mm512_load_ps(reinterpret_cast<const float*>(sums.row[m]));
        const __m512 sum = _mm512_add_ps(before, _mm512_add_ps(of_even, of_odd));
        _mm512_store_ps(reinterpret_cast<float*>(sums.row[m]), sum);
    }
}

// TDPBF16PS: rounds to nearest even, treats denormals as zero and flushes denormal results, whatever MXCSR says.
inline void dpbf16ps(int sums, int a, int b) {
    constexpr unsigned masked = 0x1f80, denormals_are_zero = 1u << 6, flush_to_zero = 1u << 15;
    check_product("tdpbf16ps", sums, a, b);
    const unsigned before = _mm_getcsr();
    _mm_setcsr(masked | denormals_are_zero | flush_to_zero);
    __asm__ volatile("" : : : "memory");
    bf16_sums(state.tile[sums], state.tile[a], state.tile[b], state.rows[sums]);
    __asm__ volatile("" : : : "memory");
    _mm_setcsr(before);
}

// TDPBUSD: bytes times int8, four terms a column, in int32 that wraps.
inline void dpbusd(int sums, int a, int b) {
    check_product("tdpbusd", sums, a, b);
    for (int m = 0; m < state.rows[sums]; ++m) {
        __m512i sum = _mm512_load_si512(state.tile[sums].row[m]);
        for (int k = 0; k < most_rows; ++k) {
            int32_t four;
            std::memcpy(&four, state.tile[a].row[m] + 4 * k, sizeof four);
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(four), _mm512_load_si512(state.tile[b].row[k]));
        }
        _mm512_store_si512(state.tile[sums].row[m], sum);
    }
}

}  // namespace amx_emulator

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_loadconfig(from) amx_emulator::load_configuration(from)
#define _tile_release() amx_emulator::release()
#define _tile_loadd(tile, from, stride) amx_emulator::load(tile, from, stride)
#define _tile_stored(tile, to, stride) amx_emulator::store(tile, to, stride)
#define _tile_zero(tile) amx_emulator::zero(tile)
#define _tile_dpbf16ps(sums, a, b) amx_emulator::dpbf16ps(sums, a, b)
#define _tile_dpbusd(sums, a, b) amx_emulator::dpbusd(sums, a, b)

#endif
