#ifndef SPADE_BF16_HPP
#define SPADE_BF16_HPP

#include <bit>
#include <cstdint>

namespace spade {

// bf16: the upper half of a float32. A type of its own lets load and store choose the conversion by overload.
struct bf16 {
    uint16_t bits;
};

namespace {

// Rounds to nearest even; NaN stays NaN.
[[maybe_unused]] inline bf16 to_bf16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

[[maybe_unused]] inline float to_float(bf16 value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

}  // namespace

}  // namespace spade

#endif
