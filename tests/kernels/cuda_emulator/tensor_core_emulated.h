// The tensor cores of kernels/cuda/device/tensor_core.hpp on the CPU, with the PTX ISA's layouts of fragments.
#ifndef SPADE_EMULATOR_TENSOR_CORE_H
#define SPADE_EMULATOR_TENSOR_CORE_H

#include <cstdint>
#include <cstring>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

namespace spade {

// Row i of matrix m, whose address lane 8 m + i passed. Refuses rows that the hardware refuses (unaligned) or reads
// slowly (in the same banks of shared memory).
inline const uint16_t* emulated_row(const uint64_t (&rows)[32], unsigned matrix, unsigned row) {
    unsigned banks = 0;
    for (unsigned i = 0; i < 8; ++i) {
        if (rows[matrix * 8 + i] % 16 != 0) emulated_fail("a row of a matrix that is not at a multiple of 16 bytes");
        banks |= 1u << rows[matrix * 8 + i] / 16 % 8;
    }
    if (banks != 0xFF) emulated_fail("rows of a matrix share banks of shared memory");
    return reinterpret_cast<const uint16_t*>(rows[matrix * 8 + row]);
}

inline void load_matrices(uint32_t (&to)[4], const void* row) {
    uint64_t rows[32];
    std::memcpy(&emulated_exchange[emulated_warp()][emulated_lane()], &row, sizeof(row));
    __syncwarp();
    std::memcpy(rows, emulated_exchange[emulated_warp()], sizeof(rows));
    const unsigned first = emulated_lane() / 4, second = emulated_lane() % 4 * 2;
    for (unsigned m = 0; m < 4; ++m) std::memcpy(&to[m], emulated_row(rows, m, first) + second, sizeof(to[m]));
    __syncwarp();
}

inline float emulated_value(__half, uint16_t bits) {
    __half half;
    std::memcpy(&half, &bits, sizeof(bits));
    return __half2float(half);
}
inline float emulated_value(__nv_bfloat16, uint16_t bits) { return __bfloat162float({bits}); }

template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    static float left[32][16][16], right[32][16][8];  // a and b of each warp
    auto& own_left = left[emulated_warp()];
    auto& own_right = right[emulated_warp()];
    const unsigned first = emulated_lane() / 4, second = emulated_lane() % 4 * 2;
    for (unsigned i = 0; i < 2; ++i) {
        const auto half = [i](uint32_t two) { return emulated_value(T{}, static_cast<uint16_t>(two >> 16 * i)); };
        for (unsigned j = 0; j < 4; ++j) own_left[first + j % 2 * 8][second + i + j / 2 * 8] = half(a[j]);
        own_right[second + i][first] = half(b0);
        own_right[second + i + 8][first] = half(b1);
    }
    __syncwarp();
    for (unsigned i = 0; i < 4; ++i)
        for (unsigned k = 0; k < 16; ++k) sums[i] += own_left[first + i / 2 * 8][k] * own_right[k][second + i % 2];
    __syncwarp();
}

inline void* dynamic_shared() {
    alignas(1024) static unsigned char memory[kEmulatedShared];
    return memory;
}

}  // namespace spade

#endif
