// What the executor knows of a kind of step.
#ifndef SPADE_OPERATIONS_HPP
#define SPADE_OPERATIONS_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {

// scratch: the thread's own, whose first eight bytes are 0 when it comes to a step, and else as its last run of units
// of that step left them.
using RunStep = void (*)(const spade_step& step, int64_t begin, int64_t end, void* scratch);

struct Operation {
    bool long_runs;  // a run of units has a costly start: few of them
    int64_t (*units)(const spade_step& step);
    int64_t (*scratch_bytes)(const spade_step& step);  // of each thread
    RunStep run[SPADE_ISAS];
};

// Null if the kind is unknown.
const Operation* find_operation(int64_t kind);

}  // namespace spade

#endif
