// Single instructions of AMX and AVX512-FP16 for test_amx_emulator.py, on the processor or on the emulator.
#include <immintrin.h>

#include <cstdint>

namespace {

struct alignas(64) Configuration {
    uint8_t palette = 1;
    uint8_t unused[15] = {};
    uint16_t bytes_of_row[16] = {64, 64, 64};
    uint8_t rows[16] = {};
};

}  // namespace

extern "C" {

// sums [rows][16] += a [rows][64 bytes] x b [16][64 bytes]: bf16, or bytes times int8.
void probe_product(int int8, int rows, void* sums, const void* a, const void* b) {
    Configuration configuration;
    configuration.rows[0] = configuration.rows[1] = static_cast<uint8_t>(rows);
    configuration.rows[2] = 16;
    _tile_loadconfig(&configuration);
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, a, 64);
    _tile_loadd(2, b, 64);
    if (int8 != 0)
        _tile_dpbusd(0, 1, 2);
    else
        _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, sums, 64);
    _tile_release();
    __asm__ volatile("" : : "r"(sums) : "memory");
}

// Four results of 32 float16 each: a - b, a * b, max(a, b), a * b + c.
void probe_float16(const uint16_t* a, const uint16_t* b, const uint16_t* c, uint16_t* out) {
    const __m512h x = _mm512_loadu_ph(a), y = _mm512_loadu_ph(b), z = _mm512_loadu_ph(c);
    const __m512h results[] = {_mm512_sub_ph(x, y), _mm512_mul_ph(x, y), _mm512_max_ph(x, y), _mm512_fmadd_ph(x, y, z)};
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + 32 * i, _mm512_castph_si512(results[i]));
}

// 16 float32 -> float16 and back.
void probe_conversion(const float* from, uint16_t* halves, float* back) {
    _mm256_storeu_ph(halves, _mm512_cvtxps_ph(_mm512_loadu_ps(from)));
    _mm512_storeu_ps(back, _mm512_cvtxph_ps(_mm256_loadu_ph(halves)));
}
}
