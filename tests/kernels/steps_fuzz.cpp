// A libFuzzer target of every kind of step: levels of any small size, on every ISA of this processor, on one thread and
// on several. The bits must be the same. scripts/fuzz_native builds and runs this program.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "spade_kernels.h"
#include "steps.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    uint8_t given[10] = {};
    std::memcpy(given, data, std::min(size, sizeof given));
    constexpr int64_t TAPS[] = {1, 9, 25};
    const steps::Level level{1 + given[0] % 2,  1 + given[1] % 12, 1 + given[2] % 80, 1 + given[3] % 100,
                             1 + given[4] % 40, 1 + given[5] % 80, TAPS[given[6] % 3]};
    const auto isa = static_cast<int32_t>(given[7] % SPADE_ISAS);
    if (spade_isa_supported(isa) == 0) return 0;
    const int64_t form =
        given[8] % 2 && isa != SPADE_ISA_AMX ? SPADE_CODEBOOK_PER_TAP : SPADE_CODEBOOK_GATHERED;  // amx has one form
    const bool part = given[8] & 2;
    const auto one = steps::run(level, isa, SPADE_CODEBOOK_GATHERED, 1, part);
    if (!steps::equal(one, steps::run(level, isa, form, 2 + given[9] % 3, part))) std::abort();
    return 0;
}
