// The warpgroup products of kernels/cuda/device/warpgroup.hpp on the CPU, after the PTX ISA: a factor is read at the
// addresses that its descriptor gives the hardware.
#ifndef SPADE_EMULATOR_WARPGROUP_H
#define SPADE_EMULATOR_WARPGROUP_H

#include "tensor_core_emulated.h"

namespace spade {

// The descriptor of the device, with the address counted from the begin of the block's shared memory, which is a
// multiple of 1024 bytes.
inline uint64_t matrix_descriptor(const void* first) {
    const auto address =
        static_cast<uint64_t>(static_cast<const char*>(first) - static_cast<const char*>(dynamic_shared()));
    if (address % 16 != 0 || address >= kEmulatedShared) emulated_fail("a matrix that is not in dynamic shared memory");
    return (address & 0x3FFFF) >> 4 | UINT64_C(1) << 16 | UINT64_C(1024) >> 4 << 32 | UINT64_C(1) << 62;
}

// An element of a matrix whose rows run along K, with the 128-byte swizzle: bits 7 to 9 of the address are added (XOR)
// to bits 4 to 6.
inline uint16_t emulated_element(uint64_t descriptor, unsigned row, unsigned k) {
    if (descriptor >> 62 != 1) emulated_fail("a matrix that is not swizzled by 128 bytes");
    const uint64_t start = (descriptor & 0x3FFF) << 4, apart = (descriptor >> 32 & 0x3FFF) << 4;
    uint64_t address = start + row / 8 * apart + row % 8 * 128 + k * 2;
    address ^= (address >> 7 & 7) << 4;
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(dynamic_shared()) + address, sizeof(bits));
    return bits;
}

inline void publish_shared() {}
inline void begin_products() {}
inline void commit_products() { emulated_commit(emulated_products); }
template <int Groups>
void wait_for_products() {
    emulated_wait(Groups, emulated_products);
}

inline void take_sums(float (&)[32][4]) {}

template <typename T>
void multiply_group(float (&sums)[32][4], uint64_t a, uint64_t b) {
    const unsigned first = emulated_warp() % 4 * 16 + emulated_lane() / 4, second = emulated_lane() % 4 * 2;
    emulated_start(
        [=, &sums] {
            for (unsigned i = 0; i < 2; ++i)
                for (unsigned k = 0; k < 16; ++k) {
                    const float left = emulated_value(T{}, emulated_element(a, first + 8 * i, k));
                    for (unsigned j = 0; j < 64; ++j)
                        sums[j / 2][2 * i + j % 2] +=
                            left * emulated_value(T{}, emulated_element(b, j / 2 * 8 + second + j % 2, k));
                }
        },
        emulated_products);
}

}  // namespace spade

#endif
