// How steps are split into work items, where kernels and spade_<op>_work_items must agree.
#ifndef SPADE_WORK_SPLIT_HPP
#define SPADE_WORK_SPLIT_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {

// Bytes of an element of T and of I.
constexpr int64_t element_bytes(int32_t isa) { return isa == SPADE_ISA_AVX2 || isa == SPADE_ISA_AVX512 ? 4 : 2; }

constexpr int64_t embed_item_rows = 32;     // rows of one work item
constexpr int64_t codebook_item_rows = 96;  // rows of one work item of the gathered form
constexpr int64_t codebook_columns = 64;    // columns of a block: 32 of a and 32 of b

// Whether the weights of so many blocks are larger than the second-level cache.
constexpr bool codebook_amx_far(int64_t blocks) { return blocks >= 8; }

// Rows that amx gathers for one group. Weights that do not fit the cache get larger groups, so that they are read less
// often.
constexpr int64_t codebook_amx_most_rows = 256;
constexpr int64_t codebook_amx_header_bytes = 4096;  // header of the scratch, before the gathered rows
constexpr int64_t codebook_amx_rows(int64_t blocks) { return codebook_amx_far(blocks) ? codebook_amx_most_rows : 128; }

}  // namespace spade

#endif
