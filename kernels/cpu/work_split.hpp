// How the work of a step is cut into units, the same for every isa.
#ifndef SPADE_UNITS_HPP
#define SPADE_UNITS_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {

constexpr int64_t element_bytes(int32_t isa) { return isa == SPADE_ISA_AVX2 || isa == SPADE_ISA_AVX512 ? 4 : 2; }

constexpr int64_t embed_unit_rows = 32;
constexpr int64_t codebook_columns = 64;    // of a block: 32 a and 32 b
constexpr int64_t codebook_unit_rows = 96;  // of the gathered form

// Whether the weights of so many columns exceed the second-level cache.
constexpr bool codebook_amx_far(int64_t blocks) { return blocks >= 8; }

// Rows that amx gathers at once: more where the weights come from afar, so that they are read less often.
constexpr int64_t codebook_amx_most_rows = 256;
constexpr int64_t codebook_amx_header_bytes = 4096;  // of its scratch, before these rows
constexpr int64_t codebook_amx_rows(int64_t blocks) { return codebook_amx_far(blocks) ? codebook_amx_most_rows : 128; }

}  // namespace spade

#endif
