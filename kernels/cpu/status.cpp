// The English sentence of each status of the C header.

#include "spade_kernels.h"

const char* spade_status_message(spade_status status) {
    switch (status) {
        case SPADE_OK:
            return "no error";
        case SPADE_ERROR_NULL:
            return "a required pointer is null";
        case SPADE_ERROR_SIZE:
            return "a height or width is below 1, or the padded level is above 2^28 pixels";
        case SPADE_ERROR_N_SYMBOLS:
            return "n_symbols is not in 1..65535";
        case SPADE_ERROR_KERNEL_SIZE:
            return "kernel_size is not 1, 3 or 5";
        case SPADE_ERROR_SCRATCH:
            return "scratch is too small or not aligned to 8 bytes";
        case SPADE_ERROR_STEP:
            return "a step's kind is unknown or its overlaps are negative";
        case SPADE_ERROR_ISA:
            return "a step's isa is unknown or this processor does not run it";
        case SPADE_ERROR_MEMORY:
            return "the pool's scratch could not be allocated";
    }
    return "unknown status";
}
