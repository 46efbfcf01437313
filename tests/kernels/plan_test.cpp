// Compares the plan kernel with a quadratic reference that shares no code with it. SPADE_SANITIZE builds this program.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "spade_kernels.h"

namespace {

using Window = std::vector<int32_t>;

#define EXPECT(condition)                                                        \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (false)

struct Numbered {
    std::vector<Window> windows;
    std::vector<int32_t> numbers;
};

Numbered number_slowly(const std::vector<int32_t>& map, int64_t h, int64_t w, int32_t outside, int32_t k) {
    Numbered result;
    for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x) {
            Window window;
            for (int64_t v = y - k / 2; v <= y + k / 2; ++v)
                for (int64_t u = x - k / 2; u <= x + k / 2; ++u)
                    window.push_back(v < 0 || v >= h || u < 0 || u >= w ? outside : map[v * w + u]);
            auto found = std::find(result.windows.begin(), result.windows.end(), window);
            result.numbers.push_back(static_cast<int32_t>(found - result.windows.begin()));
            if (found == result.windows.end()) result.windows.push_back(window);
        }
    return result;
}

std::vector<int32_t> flat(const std::vector<Window>& windows) {
    std::vector<int32_t> all;
    for (const Window& window : windows) all.insert(all.end(), window.begin(), window.end());
    return all;
}

// Runs both work items in turn on this thread or, if apart, each on a thread of its own, the second item first.
void run(const spade_plan& plan, bool apart) {
    if (!apart) return spade_plan_run(&plan, 0, spade_plan_work_items(&plan));
    std::thread follower([&] { spade_plan_run(&plan, 1, 2); });
    spade_plan_run(&plan, 0, 1);
    follower.join();
}

// Buffers are exactly as large as the header says, so that the address sanitizer sees an access past the end.
void expect_same(const spade_plan_shape& shape, const std::vector<uint16_t>& symbols, int64_t row_stride) {
    const int64_t h = shape.height, w = shape.width, taps = shape.kernel_size * shape.kernel_size;
    std::vector<int32_t> resized;
    for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x)
            resized.push_back(symbols[y * shape.map_height / h * row_stride + x * shape.map_width / w]);
    const Numbered three = number_slowly(resized, h, w, shape.n_symbols, shape.kernel_size);
    const auto outside = static_cast<int32_t>(three.windows.size());
    const Numbered five = number_slowly(three.numbers, h, w, outside, shape.kernel_size);

    int64_t bytes = 0;
    EXPECT(spade_plan_scratch_bytes(&shape, &bytes) == SPADE_OK);
    for (const bool apart : {false, true}) {
        std::vector<uint64_t> scratch(static_cast<size_t>(bytes) / 8, 0xABABABABABABABABu);
        std::vector<int32_t> index(static_cast<size_t>(h * w), -1);
        spade_plan_counts counts{};
        spade_plan plan{shape, symbols.data(), row_stride, scratch.data(), index.data(), &counts, nullptr, nullptr};
        EXPECT(spade_plan_start(&plan, bytes) == SPADE_OK);
        run(plan, apart);
        EXPECT(counts.patches3 == static_cast<int64_t>(three.windows.size()));
        EXPECT(counts.patches5 == static_cast<int64_t>(five.windows.size()));
        std::vector<int32_t> patches3(static_cast<size_t>(counts.patches3 * taps)),
            patches5(static_cast<size_t>(counts.patches5 * taps));
        plan.patches3 = patches3.data(), plan.patches5 = patches5.data();
        run(plan, apart);
        EXPECT(index == five.numbers);
        EXPECT(patches3 == flat(three.windows));
        EXPECT(patches5 == flat(five.windows));
    }
}

void random_maps() {
    std::mt19937 random(7);
    auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    for (int trial = 0; trial < 300; ++trial) {
        const int32_t n_symbols = trial % 3 == 0 ? draw(1, 3) : trial % 3 == 1 ? draw(4, 400) : draw(401, 65535);
        const spade_plan_shape shape{draw(1, 30), draw(1, 30), draw(1, 40), draw(1, 40), n_symbols, 2 * draw(0, 2) + 1};
        const int64_t row_stride = shape.map_width + draw(0, 3);
        std::vector<uint16_t> symbols(static_cast<size_t>((shape.map_height - 1) * row_stride + shape.map_width));
        const int blob = draw(1, 9);  // length of runs of one symbol
        for (size_t i = 0; i < symbols.size(); ++i)
            symbols[i] = i % blob ? symbols[i - 1] : static_cast<uint16_t>(draw(0, n_symbols - 1));
        expect_same(shape, symbols, row_stride);
    }
}

void one_pixel_and_one_symbol() {
    for (int32_t k : {1, 3, 5}) {
        expect_same({1, 1, 1, 1, 1, k}, {0}, 1);
        expect_same({1, 1, 7, 9, 65535, k}, {65534}, 1);
        expect_same({20, 33, 20, 33, 2, k}, std::vector<uint16_t>(20 * 33, 1), 33);
    }
}

// Enough distinct windows for the table to grow, then windows that were numbered before the table grew.
void all_different_and_again() {
    std::vector<uint16_t> symbols(80 * 80);
    for (size_t i = 0; i < symbols.size(); ++i) symbols[i] = static_cast<uint16_t>(i % (60 * 80));
    for (int32_t k : {1, 3, 5}) expect_same({80, 80, 80, 80, 4800, k}, symbols, 80);
}

// Compares symbols with a formula per pixel; the sanitizers watch the accesses around the border.
void symbols_of_requests() {
    std::mt19937 random(11);
    auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    for (int trial = 0; trial < 100; ++trial) {
        const spade_symbols_shape shape{draw(1, 3), draw(1, 9), draw(1, 40), 8, trial % 2 == 0 ? 7 : -1};
        const size_t count = static_cast<size_t>(shape.n * shape.height * shape.width);
        std::vector<uint8_t> labels(count);
        std::vector<int32_t> instances(count);
        for (uint8_t& label : labels) label = static_cast<uint8_t>(draw(0, 20) == 0 ? 255 : draw(0, 7));
        for (int32_t& instance : instances) instance = draw(-1, 0);
        std::vector<uint16_t> plain(count), both(count);
        int32_t known = -1;
        EXPECT(spade_symbols(&shape, labels.data(), nullptr, plain.data(), &known) == SPADE_OK);
        EXPECT(spade_symbols(&shape, labels.data(), instances.data(), both.data(), &known) == SPADE_OK);
        bool expected = true;
        for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
            const int64_t x = i % shape.width, y = i / shape.width % shape.height;
            auto differs = [&](int64_t by) { return instances.data()[i] != instances.data()[i + by]; };
            const bool edge = (x > 0 && differs(-1)) || (x + 1 < shape.width && differs(1)) ||
                              (y > 0 && differs(-shape.width)) || (y + 1 < shape.height && differs(shape.width));
            const auto at = static_cast<size_t>(i);
            const int id = labels[at] == 255 && shape.dont_care_id >= 0 ? shape.dont_care_id : labels[at];
            EXPECT(plain[at] == id);
            EXPECT(both[at] == 2 * id + (edge ? 1 : 0));
            expected = expected && id < shape.classes;
        }
        EXPECT((known == 1) == expected);
    }
    const spade_symbols_shape empty{0, 1, 1, 8, -1};
    const uint8_t label = 0;
    uint16_t symbol = 0;
    int32_t known = 0;
    EXPECT(spade_symbols(&empty, &label, nullptr, &symbol, &known) == SPADE_ERROR_SIZE);
    EXPECT(spade_symbols(&empty, nullptr, nullptr, &symbol, &known) == SPADE_ERROR_NULL);
}

void refusals() {
    const spade_plan_shape good{2, 2, 2, 2, 4, 3};
    const std::vector<uint16_t> symbols{0, 1, 2, 3};
    std::vector<uint64_t> scratch(4096);
    std::vector<int32_t> index(4), out(100);
    spade_plan_counts counts{};
    int64_t bytes = 0, position = 0;
    auto find = [&](spade_plan_shape shape, void* memory, int64_t memory_bytes) {
        const spade_plan plan{shape, symbols.data(), 2, memory, index.data(), &counts, nullptr, nullptr};
        return spade_plan_start(&plan, memory_bytes);
    };
    auto with = [&](int64_t spade_plan_shape::* field, int64_t value) {
        spade_plan_shape shape = good;
        shape.*field = value;
        return shape;
    };
    EXPECT(spade_plan_scratch_bytes(&good, &bytes) == SPADE_OK);
    EXPECT(find(good, scratch.data(), bytes) == SPADE_OK);
    EXPECT(find(good, scratch.data(), bytes - 1) == SPADE_ERROR_SCRATCH);
    EXPECT(find(good, reinterpret_cast<char*>(scratch.data()) + 4, bytes) == SPADE_ERROR_SCRATCH);
    EXPECT(find(good, nullptr, bytes) == SPADE_ERROR_NULL);
    EXPECT(spade_plan_scratch_bytes(nullptr, &bytes) == SPADE_ERROR_NULL);
    EXPECT(spade_plan_start(nullptr, bytes) == SPADE_ERROR_NULL);
    EXPECT(spade_plan_rebase(nullptr, 0, 0, 0, 0, out.data()) == SPADE_ERROR_NULL);
    for (int64_t bad : {int64_t{0}, int64_t{-1}, INT64_MAX, INT64_C(1) << 28}) {
        EXPECT(find(with(&spade_plan_shape::height, bad), scratch.data(), bytes) == SPADE_ERROR_SIZE);
        EXPECT(find(with(&spade_plan_shape::width, bad), scratch.data(), bytes) == SPADE_ERROR_SIZE);
    }
    EXPECT(find(with(&spade_plan_shape::map_height, 0), scratch.data(), bytes) == SPADE_ERROR_SIZE);
    EXPECT(find(with(&spade_plan_shape::map_width, -3), scratch.data(), bytes) == SPADE_ERROR_SIZE);
    for (int32_t bad : {0, -1, 65536}) {
        EXPECT(find({2, 2, 2, 2, bad, 3}, scratch.data(), bytes) == SPADE_ERROR_N_SYMBOLS);
        EXPECT(spade_plan_first_bad_symbol(symbols.data(), 4, bad, &position) == SPADE_ERROR_N_SYMBOLS);
    }
    for (int32_t bad : {0, 2, 4, 7, -3})
        EXPECT(find({2, 2, 2, 2, 4, bad}, scratch.data(), bytes) == SPADE_ERROR_KERNEL_SIZE);
    EXPECT(spade_plan_first_bad_symbol(symbols.data(), 4, 4, &position) == SPADE_OK && position == -1);
    EXPECT(spade_plan_first_bad_symbol(symbols.data(), 4, 2, &position) == SPADE_OK && position == 2);
}

}  // namespace

int main() {
    random_maps();
    one_pixel_and_one_symbol();
    all_different_and_again();
    symbols_of_requests();
    refusals();
    std::puts("plan_test: all equal");
    return 0;
}
