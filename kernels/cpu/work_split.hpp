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

// ---- Rectangles ----

template <typename Args>
constexpr bool is_empty(const Args& args) {
    return args.bottom <= args.top || args.right <= args.left;
}

// Columns first .. end - 1, or lines.
struct Span {
    int64_t first, end;
};

// The lines of a padded map that a modulation writes: the rectangle's lines, and the border line above and below the
// map.
constexpr Span modulated_lines(const spade_modulate& args) {
    if (is_empty(args)) return {0, 0};
    return {args.top == 0 ? 0 : args.top + 1, args.bottom == args.height ? args.height + 2 : args.bottom + 1};
}

// Columns first .. end - 1, rounded outwards so that pixels which read one pixel of x are made together.
constexpr Span modulated_columns(const spade_modulate& args, int64_t first, int64_t end) {
    return args.shift == 0 ? Span{first, end} : Span{first / 2 * 2, (end + 1) / 2 * 2};
}

}  // namespace spade

#endif
