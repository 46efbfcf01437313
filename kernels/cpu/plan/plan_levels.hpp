// Plans the levels of symbol maps with memory of its own: allocates scratch and tables, and runs both passes of each
// plan.
#ifndef SPADE_PLAN_LEVELS_HPP
#define SPADE_PLAN_LEVELS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "spade_kernels.h"

namespace spade {
namespace {

// Throws std::invalid_argument, with the status as a sentence, unless the status is SPADE_OK.
void check(spade_status status) {
    if (status != SPADE_OK) throw std::invalid_argument(spade_status_message(status));
}

// An int32 table [rows, columns].
struct Buffer {
    std::unique_ptr<int32_t[]> data;
    size_t rows, columns;
    Buffer(int64_t r, int64_t c)
        : data(new int32_t[static_cast<size_t>(r) * static_cast<size_t>(c)]),
          rows(static_cast<size_t>(r)),
          columns(static_cast<size_t>(c)) {}
};

// Memory that grows and is kept for the next call.
class Scratch {
 public:
    void* reserve(int64_t bytes) {
        if (bytes <= bytes_) return data_.get();
        bytes_ = 0;
        data_.reset(new uint64_t[static_cast<size_t>(bytes) / sizeof(uint64_t) + 1]);
        bytes_ = bytes;
        return data_.get();
    }

 private:
    std::unique_ptr<uint64_t[]> data_;
    int64_t bytes_ = 0;
};

// The plan of one level of one map.
struct Level {
    spade_plan_counts counts{};
    Buffer index, patches3{0, 0}, patches5{0, 0};
    explicit Level(const spade_plan_shape& shape) : index(shape.height, shape.width) {}

    static int32_t* allocate(Buffer& table, int64_t rows, int64_t kernel_size) {
        table = Buffer(rows, kernel_size * kernel_size);
        return table.data.get();
    }
};

spade_step plan_step(const spade_plan_shape& shape, const uint16_t* symbols, void* scratch, Level& level) {
    spade_step step{};
    step.kind = SPADE_STEP_PLAN;
    step.args.plan = {shape,         symbols, shape.map_width, scratch, level.index.data.get(),
                      &level.counts, nullptr, nullptr};
    return step;
}

// Runs the plans on a pool, where all may run at the same time, or on this thread if pool is null.
void run_plans(std::vector<spade_step>& steps, spade_pool* pool) {
    for (size_t i = 0; i < steps.size(); ++i) steps[i].overlaps = static_cast<int64_t>(i);
    if (pool != nullptr) return check(spade_run(steps.data(), static_cast<int64_t>(steps.size()), pool, nullptr));
    for (const spade_step& step : steps) spade_plan_run(&step.args.plan, 0, spade_plan_work_items(&step.args.plan));
}

// Plans all levels of `maps` symbol maps, which lie one behind the other, at the same time. Returns the levels of the
// first map, then of the second map, and so on. Throws std::invalid_argument.
std::vector<Level> plan_levels(const uint16_t* symbols, int64_t maps, const std::vector<spade_plan_shape>& shapes,
                               spade_pool* pool, Scratch& scratch) {
    std::vector<int64_t> bytes(shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i) check(spade_plan_scratch_bytes(&shapes[i], &bytes[i]));
    auto* memory = static_cast<char*>(scratch.reserve(maps * std::accumulate(bytes.begin(), bytes.end(), int64_t{0})));
    std::vector<size_t> order(shapes.size());  // large levels first, so that threads finish together
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bytes[a] > bytes[b]; });
    std::vector<Level> levels;
    for (int64_t map = 0; map < maps; ++map)
        for (const spade_plan_shape& shape : shapes) levels.emplace_back(shape);
    std::vector<spade_step> steps;
    std::vector<Level*> of_steps;
    for (const size_t i : order)
        for (int64_t map = 0; map < maps; ++map) {
            const spade_plan_shape& shape = shapes[i];
            of_steps.push_back(&levels[static_cast<size_t>(map) * shapes.size() + i]);
            steps.push_back(
                plan_step(shape, symbols + map * shape.map_height * shape.map_width, memory, *of_steps.back()));
            check(spade_plan_start(&steps.back().args.plan, bytes[i]));
            memory += bytes[i];
        }
    run_plans(steps, pool);
    for (size_t i = 0; i < steps.size(); ++i) {
        spade_plan& plan = steps[i].args.plan;
        plan.patches3 = Level::allocate(of_steps[i]->patches3, plan.counts->patches3, plan.shape.kernel_size);
        plan.patches5 = Level::allocate(of_steps[i]->patches5, plan.counts->patches5, plan.shape.kernel_size);
    }
    run_plans(steps, pool);
    return levels;
}

}  // namespace
}  // namespace spade

#endif
