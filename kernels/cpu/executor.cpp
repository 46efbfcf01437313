// Runs programs on a pool of threads. Every thread walks the steps in order and takes ranges of work items of each step
// from a shared counter. A thread starts a step when all threads have finished the steps before it, except the last
// `overlaps` steps, which may still be running.
//
// Ranges: the first ranges of a step are long, because neighbouring items share weights; they shrink with the items
// that are left, so that threads finish together. An operation with long_ranges starts with one long range a thread,
// which covers four fifths of the step, and shrinks ranges in the last fifth.
//
// Waiting: threads spin for a moment, because a step is often shorter than a wake-up, and then sleep. After a program
// they yield for a while before they sleep, because the next program of the same request comes soon.

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int spins = 4000;  // some tens of microseconds
constexpr std::chrono::microseconds between_programs(300);

// Returns when `value` is `wanted`: spins, then yields for `patience`, then sleeps until the writer notifies.
void wait_for(const std::atomic<uint32_t>& value, uint32_t wanted, Clock::duration patience = Clock::duration::zero()) {
    for (int i = 0; i < spins; ++i) {
        if (value.load(std::memory_order_acquire) == wanted) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    if (patience > Clock::duration::zero())
        for (const Clock::time_point end = Clock::now() + patience; Clock::now() < end; std::this_thread::yield())
            if (value.load(std::memory_order_acquire) == wanted) return;
    for (uint32_t now = value.load(std::memory_order_acquire); now != wanted;
         now = value.load(std::memory_order_acquire))
        value.wait(now, std::memory_order_acquire);
}

// The progress of one step.
struct alignas(64) Progress {
    std::atomic<int64_t> next{0};      // the first item that no thread has taken
    std::atomic<uint32_t> through{0};  // threads that have finished the step
};

// Page-aligned memory that grows and is kept.
struct Scratch {
    void* data = nullptr;
    int64_t bytes = 0;
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(data); }
    bool reserve(int64_t wanted) {
        if (wanted <= bytes) return true;
        std::free(data);
        bytes = (wanted + 4095) / 4096 * 4096;
        data = std::aligned_alloc(4096, static_cast<size_t>(bytes));
        if (data == nullptr) bytes = 0;
        return data != nullptr;
    }
};

}  // namespace

struct spade_pool {
    explicit spade_pool(int64_t threads) : scratch(static_cast<size_t>(threads)) {
        workers.reserve(static_cast<size_t>(threads));
    }
    ~spade_pool() {
        stopping.store(true, std::memory_order_relaxed);
        next_program();
        for (std::thread& worker : workers) worker.join();
    }

    void start_workers() {
        for (size_t i = 1; i < scratch.size(); ++i) workers.emplace_back([this, i] { serve(i); });
    }
    spade_status run(const spade_step* program_steps, int64_t count, double* program_seconds);

 private:
    void serve(size_t thread);
    void next_program();
    void walk(size_t thread);
    void work(const spade_step& step, Progress& of_step, void* memory);
    spade_status prepare(const spade_step* program_steps, int64_t count);

    std::mutex in_use;
    std::vector<Scratch> scratch;  // one for each thread
    std::vector<std::thread> workers;
    // One for each step, never freed while the pool lives: after a run ends, a thread may still notify the last one.
    std::deque<Progress> progress;
    const spade_step* steps = nullptr;
    int64_t n_steps = 0;
    double* seconds = nullptr;
    std::atomic<bool> stopping{false};
    alignas(64) std::atomic<uint32_t> program{0};  // counts the programs started
};

void spade_pool::next_program() {
    program.store(program.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    program.notify_all();
}

void spade_pool::serve(size_t thread) {
    for (uint32_t number = 1;; ++number) {
        wait_for(program, number, between_programs);
        if (stopping.load(std::memory_order_relaxed)) return;
        walk(thread);
    }
}

void spade_pool::walk(size_t thread) {
    // A thread that has finished the last step reads no member of the pool: the next call may already overwrite them.
    const auto threads = static_cast<uint32_t>(scratch.size());
    const int64_t count = n_steps;
    Clock::time_point began = Clock::now();
    // The time that a thread waits for a step to end counts as that step's time.
    const auto add_seconds = [&](int64_t step) {
        if (thread != 0 || seconds == nullptr || step < 0) return;
        const Clock::time_point now = Clock::now();
        seconds[steps[step].kind] += std::chrono::duration<double>(now - began).count();
        began = now;
    };
    for (int64_t i = 0; i < count; ++i) {
        const int64_t before = i - 1 - steps[i].overlaps;
        if (before >= 0) wait_for(progress[static_cast<size_t>(before)].through, threads);
        add_seconds(i - 1);
        Progress& of_step = progress[static_cast<size_t>(i)];
        work(steps[i], of_step, scratch[thread].data);
        if (of_step.through.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) of_step.through.notify_all();
    }
    if (thread != 0) return;
    wait_for(progress[static_cast<size_t>(count - 1)].through, threads);
    add_seconds(count - 1);
}

void spade_pool::work(const spade_step& step, Progress& of_step, void* memory) {
    const spade::Operation& operation = *spade::find_operation(step.kind);
    const int64_t items = operation.work_items(step), threads = static_cast<int64_t>(scratch.size());
    if (memory != nullptr) *static_cast<int64_t*>(memory) = 0;
    int64_t begin = of_step.next.load(std::memory_order_relaxed);
    while (begin < items) {
        const int64_t left = items - begin, most = items * 4 / 5;
        const int64_t share = threads == 1                            ? left
                              : operation.long_ranges && begin < most ? (most + threads - 1) / threads
                                                                      : (left + 2 * threads - 1) / (2 * threads);
        const int64_t end = begin + (share < left ? share : left);
        if (of_step.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) {
            operation.run[step.isa](step, begin, end, memory);
            begin = of_step.next.load(std::memory_order_relaxed);
        }
    }
}

spade_status spade_pool::prepare(const spade_step* program_steps, int64_t count) {
    int64_t bytes = 0;
    for (const spade_step* step = program_steps; step != program_steps + count; ++step) {
        const spade::Operation* operation = spade::find_operation(step->kind);
        if (operation == nullptr) return SPADE_ERROR_STEP;
        if (step->isa < 0 || step->isa >= SPADE_ISAS || spade_isa_supported(static_cast<int32_t>(step->isa)) == 0)
            return SPADE_ERROR_ISA;
        if (step->overlaps < 0) return SPADE_ERROR_STEP;
        const int64_t wanted = operation->scratch_bytes(*step);
        if (wanted > bytes) bytes = wanted;
    }
    for (Scratch& own : scratch)
        if (!own.reserve(bytes)) return SPADE_ERROR_MEMORY;
    try {
        while (progress.size() < static_cast<size_t>(count)) progress.emplace_back();
    } catch (const std::bad_alloc&) {
        return SPADE_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < count; ++i) {
        Progress& of_step = progress[static_cast<size_t>(i)];
        of_step.next.store(0, std::memory_order_relaxed);
        of_step.through.store(0, std::memory_order_relaxed);
    }
    return SPADE_OK;
}

spade_status spade_pool::run(const spade_step* program_steps, int64_t count, double* program_seconds) {
    if (count == 0) return SPADE_OK;
    const std::lock_guard<std::mutex> lock(in_use);
    if (const spade_status status = prepare(program_steps, count); status != SPADE_OK) return status;
    steps = program_steps, n_steps = count, seconds = program_seconds;
    if (!workers.empty()) next_program();
    walk(0);
    return SPADE_OK;
}

spade_pool* spade_pool_create(int64_t threads) {
    if (threads < 1) return nullptr;
    spade_pool* pool = nullptr;
    try {
        pool = new spade_pool(threads);
        pool->start_workers();
        return pool;
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    delete pool;
    return nullptr;
}

void spade_pool_destroy(spade_pool* pool) { delete pool; }

spade_status spade_run(const spade_step* steps, int64_t count, spade_pool* pool, double* seconds) {
    if ((steps == nullptr && count > 0) || pool == nullptr) return SPADE_ERROR_NULL;
    return pool->run(steps, count, seconds);
}

// ---- Work items and scratch of each operation ----

namespace {
int64_t groups(int64_t rows, int64_t item_rows) { return (rows + item_rows - 1) / item_rows; }
}  // namespace

int64_t spade_embed_work_items(const spade_embed* args) {
    return groups(args->rows + (args->zero_row != 0 ? 1 : 0), spade::embed_item_rows);
}

int64_t spade_codebook_work_items(int32_t isa, const spade_codebook* args) {
    if (isa == SPADE_ISA_AMX) return args->blocks * groups(args->rows, spade::codebook_amx_rows(args->blocks));
    if (args->form == SPADE_CODEBOOK_PER_TAP) return args->blocks;
    return args->blocks * groups(args->rows, spade::codebook_item_rows);
}

int64_t spade_modulate_work_items(const spade_modulate* args) {
    const spade::Span lines = spade::modulated_lines(*args);
    return args->n * (lines.end - lines.first);
}

int64_t spade_norm_work_items(const spade_norm* args) { return args->n * args->blocks; }

int64_t spade_image_work_items(const spade_image* args) {
    return spade::is_empty(*args) ? 0 : args->n * (args->bottom - args->top);
}

int64_t spade_codebook_scratch_bytes(int32_t isa, const spade_codebook* args) {
    if (isa == SPADE_ISA_AMX)
        return spade::codebook_amx_header_bytes + args->taps * SPADE_HIDDEN * spade::codebook_amx_rows(args->blocks) *
                                                      (args->scale != nullptr ? 1 : spade::element_bytes(isa));
    if (args->form != SPADE_CODEBOOK_PER_TAP) return 0;
    return args->taps * args->actv_rows * spade::codebook_columns * static_cast<int64_t>(sizeof(float));
}

int64_t spade_codebook_packed_bytes(int32_t isa, int64_t taps, int64_t channels) {
    return (channels + 31) / 32 * spade::codebook_columns * taps * SPADE_HIDDEN * spade::element_bytes(isa);
}

int64_t spade_codebook_int8_packed_bytes(int64_t taps, int64_t channels) {
    return (channels + 31) / 32 * spade::codebook_columns * taps * SPADE_HIDDEN;
}
