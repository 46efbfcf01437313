// Runs every kind of step on every ISA of this machine. A program on one thread and on several threads must give the
// same bits.

#include "steps.hpp"

#include <cstdint>
#include <cstdio>
#include <utility>

#include "spade_kernels.h"

using steps::equal, steps::Level, steps::run;

int main() {
    const Level levels[] = {
        {1, 1, 1, 16, 1, 1, 1},      {2, 3, 7, 48, 5, 13, 9},      {1, 2, 33, 96, 30, 50, 9},
        {3, 8, 12, 64, 101, 200, 9}, {1, 5, 257, 32, 70, 300, 25}, {2, 4, 130, 40, 20, 60, 9},
    };
    int failures = 0;
    for (int32_t isa = 0; isa < SPADE_ISAS; ++isa)
        for (const Level& level : levels) {
            if (spade_isa_supported(isa) == 0) continue;
            const steps::Buffers reference = run(level, isa, SPADE_CODEBOOK_GATHERED, 1);
            const bool in_parts = equal(run(level, isa, SPADE_CODEBOOK_GATHERED, 1, true),
                                        run(level, isa, SPADE_CODEBOOK_GATHERED, 3, true));
            if (!in_parts) {
                std::printf("steps_test: isa %d, width %d, part differs\n", static_cast<int>(isa),
                            static_cast<int>(level.width));
                ++failures;
            }
            for (const auto& [form, threads] : {std::pair<int64_t, int64_t>{SPADE_CODEBOOK_GATHERED, 4},
                                                {SPADE_CODEBOOK_PER_TAP, 1},
                                                {SPADE_CODEBOOK_PER_TAP, 3}}) {
                if (isa == SPADE_ISA_AMX && form == SPADE_CODEBOOK_PER_TAP) continue;  // amx has one form
                if (!equal(reference, run(level, isa, form, threads))) {
                    std::printf("steps_test: isa %d, width %d, form %d, threads %d differ\n", static_cast<int>(isa),
                                static_cast<int>(level.width), static_cast<int>(form), static_cast<int>(threads));
                    ++failures;
                }
            }
        }
    if (failures == 0) std::printf("steps_test: all equal\n");
    return failures == 0 ? 0 : 1;
}
