#ifndef SPADE_CONV_TABLE_HPP
#define SPADE_CONV_TABLE_HPP

#include <cstdint>

namespace spade {

// The functions of one ISA that no step calls.
struct ConvFunctions {
    int64_t (*packed_bytes)(int64_t out_channels, int64_t in_channels, int64_t kernel_size);
    void (*pack)(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size, void* packed);
    int64_t (*peak)(int64_t count);
};

extern const ConvFunctions conv_float32_avx2, conv_float32_avx512, conv_bf16_avx512bf16, conv_bf16_amx;

}  // namespace spade

#endif
