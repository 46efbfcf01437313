// A libFuzzer target of the plan kernel: any shape and any symbols. scripts/fuzz_native builds and runs this program.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "spade_kernels.h"

namespace {

constexpr int64_t MOST_PIXELS = 4096;

void require(bool holds) {
    if (!holds) std::abort();
}

bool small(int64_t height, int64_t width) {
    return height > 0 && width > 0 && height <= MOST_PIXELS && width <= MOST_PIXELS && height * width <= MOST_PIXELS;
}

// The symbol that the plan's level shows at (y, x), or "outside".
int32_t shown(const spade_plan& plan, int64_t y, int64_t x) {
    const spade_plan_shape& s = plan.shape;
    if (y < 0 || y >= s.height || x < 0 || x >= s.width) return s.n_symbols;
    return plan.symbols[y * s.map_height / s.height * plan.row_stride + x * s.map_width / s.width];
}

// Each pixel's entry of patches5 holds, at its centre, the row of patches3 with the pixel's own window.
void check(const spade_plan& plan) {
    const spade_plan_shape& s = plan.shape;
    const int64_t k = s.kernel_size, taps = k * k;
    for (int64_t y = 0; y < s.height; ++y)
        for (int64_t x = 0; x < s.width; ++x) {
            const int64_t entry = plan.index[y * s.width + x];
            require(entry >= 0 && entry < plan.counts->patches5);
            const int64_t row = plan.patches5[entry * taps + taps / 2];
            require(row >= 0 && row < plan.counts->patches3);
            for (int64_t tap = 0; tap < taps; ++tap)
                require(plan.patches3[row * taps + tap] == shown(plan, y + tap / k - k / 2, x + tap % k - k / 2));
        }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    int16_t given[6] = {};
    std::memcpy(given, data, size < sizeof given ? size : sizeof given);
    const spade_plan_shape shape{given[0], given[1], given[2], given[3], given[4], given[5]};
    int64_t bytes = 0;
    if (spade_plan_scratch_bytes(&shape, &bytes) != SPADE_OK) return 0;
    if (!small(shape.map_height, shape.map_width) || !small(shape.height, shape.width)) return 0;
    std::vector<uint16_t> symbols(static_cast<size_t>(shape.map_height * shape.map_width));
    for (size_t i = 0; i < symbols.size() && size > sizeof given; ++i)
        symbols[i] = data[sizeof given + i % (size - sizeof given)];
    int64_t position = -1;
    const auto count = static_cast<int64_t>(symbols.size());
    if (spade_plan_first_bad_symbol(symbols.data(), count, shape.n_symbols, &position) != SPADE_OK) return 0;
    if (position >= 0) return 0;  // callers check first, as the header says
    std::vector<uint64_t> scratch(static_cast<size_t>(bytes) / 8);
    std::vector<int32_t> index(static_cast<size_t>(shape.height * shape.width));
    spade_plan_counts counts{};
    spade_plan plan{shape, symbols.data(), shape.map_width, scratch.data(), index.data(), &counts, nullptr, nullptr};
    if (spade_plan_start(&plan, bytes) != SPADE_OK) return 0;
    spade_plan_run(&plan, 0, spade_plan_work_items(&plan));
    const auto taps = static_cast<size_t>(shape.kernel_size * shape.kernel_size);
    std::vector<int32_t> patches3(static_cast<size_t>(counts.patches3) * taps);
    std::vector<int32_t> patches5(static_cast<size_t>(counts.patches5) * taps);
    plan.patches3 = patches3.data(), plan.patches5 = patches5.data();
    spade_plan_run(&plan, 0, spade_plan_work_items(&plan));
    check(plan);
    return 0;
}
