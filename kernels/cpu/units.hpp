// How the work of a step is cut into units, the same for every tier.
#ifndef SPADE_UNITS_HPP
#define SPADE_UNITS_HPP

#include <cstdint>

namespace spade {

constexpr int64_t embed_unit_rows = 32;
constexpr int64_t codebook_columns = 64;    // of a block: 32 a and 32 b
constexpr int64_t codebook_unit_rows = 96;  // of the gathered form

}  // namespace spade

#endif
