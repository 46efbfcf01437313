// The table that the executor looks up for each step: how to split it, its scratch, and its kernel on every ISA.
#ifndef SPADE_OPERATIONS_HPP
#define SPADE_OPERATIONS_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {

// Computes work items begin .. end - 1 of a step. `scratch` is the thread's own. The executor zeroes its first 8 bytes
// at the start of each step and keeps the scratch between the ranges of that step.
using RunStep = void (*)(const spade_step& step, int64_t begin, int64_t end, void* scratch);

struct Operation {
    bool long_ranges;  // the start of a range is costly, so a step gets few, long ranges
    int64_t (*work_items)(const spade_step& step);
    int64_t (*scratch_bytes)(const spade_step& step);  // for each thread
    RunStep run[SPADE_ISAS];
};

// Returns null if the kind is unknown.
const Operation* find_operation(int64_t kind);

}  // namespace spade

#endif
