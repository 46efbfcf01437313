// Entry points and launches of plan.hpp.

#include "cuda/host/check.hpp"
#include "cuda/plan/plan.hpp"

using spade::PlanLevels;
using spade::PlanTables;

extern "C" __global__ void __launch_bounds__(256, 4)
    spade_plan_resize(PlanLevels levels, const uint16_t* symbols, int64_t row_stride, int32_t* ids) {
    spade::resize_symbols(levels, symbols, row_stride, ids);
}

#define SPADE_PLAN(K)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                              \
        spade_plan_insert_##K(PlanLevels levels, const int32_t* ids, int32_t* slots, uint32_t mask, int32_t* found) { \
        spade::insert_windows<K>(levels, ids, slots, mask, found);                                                    \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                              \
        spade_plan_write_##K(PlanLevels levels, const int32_t* ids, const int32_t* slots, const int32_t* found,       \
                             const int32_t* numbers, const int32_t* counts, PlanTables tables, int32_t* rows) {       \
        spade::write_windows<K>(levels, ids, slots, found, numbers, counts, tables, rows);                            \
    }

SPADE_PLAN(1)
SPADE_PLAN(3)
SPADE_PLAN(5)
#undef SPADE_PLAN

extern "C" __global__ void __launch_bounds__(256, 4)
    spade_plan_count(int32_t positions, const int32_t* slots, const int32_t* found, int32_t* block_counts) {
    spade::count_firsts(positions, slots, found, block_counts);
}

extern "C" __global__ void __launch_bounds__(256, 4) spade_plan_sum(int32_t* counts, int32_t blocks) {
    spade::sum_counts(counts, blocks);
}

extern "C" __global__ void __launch_bounds__(256, 4)
    spade_plan_rank(PlanLevels levels, const int32_t* slots, const int32_t* found, const int32_t* block_sums,
                    int32_t* ranks, int32_t* offsets) {
    spade::rank_firsts(levels, slots, found, block_sums, ranks, offsets);
}

extern "C" __global__ void __launch_bounds__(256, 4)
    spade_plan_number(PlanLevels levels, const int32_t* found, const int32_t* ranks, const int32_t* offsets,
                      int32_t* numbers) {
    spade::number_positions(levels, found, ranks, offsets, numbers);
}

namespace spade {
namespace {

struct PlanKernels {
    void (*insert)(PlanLevels, const int32_t*, int32_t*, uint32_t, int32_t*);
    void (*write)(PlanLevels, const int32_t*, const int32_t*, const int32_t*, const int32_t*, const int32_t*,
                  PlanTables, int32_t*);
};

PlanKernels kernels_of(int64_t kernel_size) {
    if (kernel_size == 1) return {spade_plan_insert_1, spade_plan_write_1};
    if (kernel_size == 3) return {spade_plan_insert_3, spade_plan_write_3};
    return {spade_plan_insert_5, spade_plan_write_5};
}

// Scratch: what find leaves for write. Each pass has a hash table of its own, because write reads both.
struct PlanScratch {
    int32_t *ids, *numbers, *found3, *found5, *slots3, *slots5, *ranks, *blocks;
    int64_t slots, bytes;
};

PlanScratch layout(int64_t positions, void* base) {
    PlanScratch scratch{};
    scratch.slots = plan_slots(positions);
    int64_t at = 0;
    const auto take = [&](int32_t*& pointer, int64_t count) {
        if (base != nullptr) pointer = reinterpret_cast<int32_t*>(static_cast<char*>(base) + at);
        at += ceil_div(count * 4, 16) * 16;
    };
    take(scratch.ids, positions);
    take(scratch.numbers, positions);
    take(scratch.found3, positions);
    take(scratch.found5, positions);
    take(scratch.slots3, scratch.slots);
    take(scratch.slots5, scratch.slots);
    take(scratch.ranks, scratch.slots);
    take(scratch.blocks, ceil_div(positions, kScanBlock));
    scratch.bytes = at;
    return scratch;
}

int64_t position_count(const spade_plan_batch& plan) {
    int64_t positions = 0;
    for (int64_t level = 0; level < plan.levels; ++level) positions += plan.n * plan.height[level] * plan.width[level];
    return positions;
}

int32_t check(const spade_plan_batch* plan) {
    if (plan == nullptr) return SPADE_CUDA_ERROR_NULL;
    if (!within(plan->levels, 1, kMaxLevels) || !is_map(plan->n, plan->map_height, plan->map_width, 1))
        return SPADE_CUDA_ERROR_SIZE;
    if (plan->kernel_size != 1 && plan->kernel_size != 3 && plan->kernel_size != 5) return SPADE_CUDA_ERROR_SIZE;
    if (!within(plan->n_symbols, 1, 65535) || plan->row_stride < plan->map_width) return SPADE_CUDA_ERROR_SIZE;
    for (int64_t level = 0; level < plan->levels; ++level)
        if (!is_map(plan->n, plan->height[level], plan->width[level], 1)) return SPADE_CUDA_ERROR_SIZE;
    return position_count(*plan) <= kMaxPlanPositions ? SPADE_CUDA_OK : SPADE_CUDA_ERROR_SIZE;
}

int32_t check_memory(const spade_plan_batch* plan) {
    if (const int32_t status = check(plan); status != SPADE_CUDA_OK) return status;
    if (any_null({plan->symbols, plan->index, plan->offsets3, plan->offsets5})) return SPADE_CUDA_ERROR_NULL;
    if (plan->scratch == nullptr || !aligned({plan->scratch}, 16) ||
        plan->scratch_bytes < layout(position_count(*plan), nullptr).bytes)
        return SPADE_CUDA_ERROR_SCRATCH;
    if (!aligned({plan->index, plan->offsets3, plan->offsets5}, 4) || !aligned({plan->symbols}, 2))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

PlanLevels levels_of(const spade_plan_batch& plan) {
    PlanLevels levels{};
    levels.count = static_cast<int32_t>(plan.levels);
    levels.n = static_cast<int32_t>(plan.n);
    levels.map_height = static_cast<int32_t>(plan.map_height);
    levels.map_width = static_cast<int32_t>(plan.map_width);
    levels.kernel_size = static_cast<int32_t>(plan.kernel_size);
    for (int level = 0; level < levels.count; ++level) {
        levels.height[level] = static_cast<int32_t>(plan.height[level]);
        levels.width[level] = static_cast<int32_t>(plan.width[level]);
        levels.start[level + 1] = levels.start[level] + levels.n * levels.height[level] * levels.width[level];
    }
    return levels;
}

// One pass: numbers the distinct windows of ids, and counts them before each map.
int32_t distinct_windows(const PlanLevels& levels, const PlanScratch& scratch, const int32_t* ids, int32_t* slots,
                         int32_t* found, int32_t* numbers, int32_t* offsets, void* stream) {
    const int32_t positions = levels.start[levels.count];
    const auto mask = static_cast<uint32_t>(scratch.slots - 1);
    const Launch each = launch_items(positions);
    const auto blocks = static_cast<int32_t>(ceil_div(positions, kScanBlock));
    const Launch ranked{blocks, kScanBlock / 4, 1}, one{1, kScanBlock / 4, 1};
    int32_t status = launch_status(
        cudaMemsetAsync(slots, 0xFF, static_cast<size_t>(scratch.slots) * 4, static_cast<cudaStream_t>(stream)));
    const auto then = [&](auto kernel, const Launch& grid, auto... arguments) {
        if (status == SPADE_CUDA_OK) status = launch(kernel, grid, stream, arguments...);
    };
    then(kernels_of(levels.kernel_size).insert, each, levels, ids, slots, mask, found);
    then(spade_plan_count, ranked, positions, slots, found, scratch.blocks);
    then(spade_plan_sum, one, scratch.blocks, blocks);
    then(spade_plan_rank, ranked, levels, slots, found, scratch.blocks, scratch.ranks, offsets);
    then(spade_plan_number, each, levels, found, scratch.ranks, offsets, numbers);
    return status;
}

}  // namespace
}  // namespace spade

int64_t spade_cuda_plan_scratch_bytes(const spade_plan_batch* plan) {
    const int32_t status = spade::check(plan);
    return status == SPADE_CUDA_OK ? spade::layout(spade::position_count(*plan), nullptr).bytes : -status;
}

int32_t spade_cuda_plan_find(const spade_plan_batch* plan, void* stream) {
    using namespace spade;
    if (const int32_t status = check_memory(plan); status != SPADE_CUDA_OK) return status;
    const PlanLevels levels = levels_of(*plan);
    const PlanScratch scratch = layout(position_count(*plan), plan->scratch);
    int32_t status = launch(spade_plan_resize, launch_items(levels.start[levels.count]), stream, levels, plan->symbols,
                            plan->row_stride, scratch.ids);
    if (status == SPADE_CUDA_OK)
        status = distinct_windows(levels, scratch, scratch.ids, scratch.slots3, scratch.found3, scratch.numbers,
                                  plan->offsets3, stream);
    if (status != SPADE_CUDA_OK) return status;
    return distinct_windows(levels, scratch, scratch.numbers, scratch.slots5, scratch.found5, plan->index,
                            plan->offsets5, stream);
}

int32_t spade_cuda_plan_write(const spade_plan_batch* plan, void* stream) {
    using namespace spade;
    if (const int32_t status = check_memory(plan); status != SPADE_CUDA_OK) return status;
    if (any_null({plan->patches3, plan->patches5})) return SPADE_CUDA_ERROR_NULL;
    PlanTables tables3{}, tables5{};
    for (int64_t level = 0; level < plan->levels; ++level) {
        for (int64_t value : {plan->first3[level], plan->room3[level], plan->first5[level], plan->room5[level]})
            if (!within(value, 0, kMaxPixels)) return SPADE_CUDA_ERROR_SIZE;
        tables3.first[level] = static_cast<int32_t>(plan->first3[level]);
        tables3.room[level] = static_cast<int32_t>(plan->room3[level]);
        tables5.first[level] = static_cast<int32_t>(plan->first5[level]);
        tables5.room[level] = static_cast<int32_t>(plan->room5[level]);
        tables3.most[level] = static_cast<int32_t>(plan->n_symbols);
        tables5.most[level] = tables3.room[level];
    }
    const PlanLevels levels = levels_of(*plan);
    const PlanScratch scratch = layout(position_count(*plan), plan->scratch);
    const Launch each = launch_items(levels.start[levels.count]);
    const auto write = kernels_of(plan->kernel_size).write;
    const int32_t status = launch(write, each, stream, levels, scratch.ids, scratch.slots3, scratch.found3,
                                  scratch.numbers, nullptr, tables3, plan->patches3);
    if (status != SPADE_CUDA_OK) return status;
    return launch(write, each, stream, levels, scratch.numbers, scratch.slots5, scratch.found5, plan->index,
                  plan->offsets3, tables5, plan->patches5);
}
