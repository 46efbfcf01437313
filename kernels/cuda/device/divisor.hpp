// Division by a number that the host knows and the compiler does not: a multiplication and a shift in place of the
// twenty instructions of a division.
#ifndef SPADE_CUDA_DIVISOR_HPP
#define SPADE_CUDA_DIVISOR_HPP

#include <cuda_runtime.h>

#include <cstdint>

namespace spade {

// For 0 <= value < 2^31: value / by = value * multiplier >> shift, with shift = 31 + ceil(log2(by)) and multiplier =
// ceil(2^shift / by), which fits 32 bits (Granlund and Montgomery, Division by Invariant Integers, 1994, theorem 4.2).
struct Divisor {
    uint32_t multiplier;
    int32_t shift;
};

inline Divisor divisor_of(int64_t by) {
    int32_t log2 = 0;
    while ((INT64_C(1) << log2) < by) ++log2;
    const uint64_t power = UINT64_C(1) << (31 + log2), divisor = static_cast<uint64_t>(by);
    return {static_cast<uint32_t>((power + divisor - 1) / divisor), 31 + log2};
}

__host__ __device__ inline int32_t divide(int32_t value, const Divisor& by) {
    return static_cast<int32_t>(static_cast<uint64_t>(static_cast<uint32_t>(value)) * by.multiplier >> by.shift);
}

}  // namespace spade

#endif
