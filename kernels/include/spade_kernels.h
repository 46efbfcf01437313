/* The one interface of the native kernels: plain C, caller-owned memory, no Python and no PyTorch.
 *
 * Every function returns a spade_status; sizes count elements unless the name says bytes. Nothing is allocated, nothing
 * is kept between calls, and no function touches global state: any number of threads may call, each with its own
 * scratch.
 */
#ifndef SPADE_KERNELS_H
#define SPADE_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum spade_status {
    SPADE_OK = 0,
    SPADE_ERROR_NULL = 1,        /* a required pointer is null */
    SPADE_ERROR_SIZE = 2,        /* a height or width is below 1, or the padded level is above SPADE_PLAN_MAX_PIXELS */
    SPADE_ERROR_N_SYMBOLS = 3,   /* n_symbols is not in 1 .. SPADE_PLAN_MAX_SYMBOLS */
    SPADE_ERROR_KERNEL_SIZE = 4, /* kernel_size is not 1, 3 or 5 */
    SPADE_ERROR_SCRATCH = 5      /* scratch is smaller than spade_plan_scratch_bytes says, or not aligned to 8 bytes */
} spade_status;

/* One English sentence for a status, static storage; never null. */
const char* spade_status_message(spade_status status);

#define SPADE_PLAN_MAX_SYMBOLS 65535
#define SPADE_PLAN_MAX_PIXELS (INT64_C(1) << 28)

/* The level to plan: a symbol map [map_height, map_width] brought to [height, width] by NEAREST. */
typedef struct spade_plan_shape {
    int64_t map_height;
    int64_t map_width;
    int64_t height;
    int64_t width;
    int32_t n_symbols;   /* symbols are 0 .. n_symbols - 1; n_symbols itself is "outside the image" */
    int32_t kernel_size; /* k: 1, 3 or 5 */
} spade_plan_shape;

/* How many rows the two tables of a level have. */
typedef struct spade_plan_counts {
    int64_t patches3;
    int64_t patches5;
} spade_plan_counts;

/* Bytes of scratch that spade_plan_find needs for this level. It grows with height and width: for several levels take
 * the largest. */
spade_status spade_plan_scratch_bytes(const spade_plan_shape* shape, int64_t* bytes);

/* The position, row-major, of the first symbol that is not below n_symbols, or -1. */
spade_status spade_plan_first_bad_symbol(const uint16_t* symbols, int64_t count, int32_t n_symbols, int64_t* position);

/* Numbers the distinct patches of one level of one map.
 *   symbols  uint16 [map_height, map_width], rows row_stride_elements apart
 *   scratch  at least spade_plan_scratch_bytes, aligned to 8; holds what spade_plan_write needs until the next find
 *   index    int32 [height, width], out: rows of patches5
 *   counts   out: the sizes for spade_plan_write */
spade_status spade_plan_find(const spade_plan_shape* shape, const uint16_t* symbols, int64_t row_stride_elements,
                             void* scratch, int64_t scratch_bytes, int32_t* index, spade_plan_counts* counts);

/* Writes the two tables of the level that spade_plan_find left in scratch.
 *   patches3 int32 [counts.patches3, k*k], out: symbols, outside = n_symbols
 *   patches5 int32 [counts.patches5, k*k], out: rows of patches3, outside = counts.patches3 */
spade_status spade_plan_write(const spade_plan_shape* shape, const void* scratch, const spade_plan_counts* counts,
                              int32_t* patches3, int32_t* patches5);

/* Moves row numbers to a longer table: out[i] = rows[i] == outside ? new_outside : rows[i] + offset, i < count. In
 * place is allowed. */
spade_status spade_plan_rebase(const int32_t* rows, int64_t count, int32_t outside, int32_t offset, int32_t new_outside,
                               int32_t* out);

#ifdef __cplusplus
}
#endif

#endif
