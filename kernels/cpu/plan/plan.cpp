// The plan of one resolution level: which pixels see the same labels, so that their gamma and beta are computed once.
//
//   patch3(y, x) = number of the window      s[y - r .. y + r, x - r .. x + r]
//   patch5(y, x) = number of the window patch3[y - r .. y + r, x - r .. x + r],    r = k / 2
//
// The number of a window is the rank of its first appearance in a row-major scan. s is the symbol map resized to [h, w]
// by NEAREST. Outside the image, s and patch3 have a value of their own.
//
// Layout: both maps are padded by r on every side, so a window is k rows of k neighbours and needs no bounds check.
//
// Bytes: a symbol (2) and a patch number (4) are written once and read by the k rows around them, from cache. The table
// grows with the distinct windows and not with the pixels.
//
// Operations: 2k compares per pixel, vectorised, find the windows that differ from their left neighbour. Only these
// windows are hashed (k multiplications) and looked up; every other pixel repeats the number to its left.
//
// Fused: resize, padding, difference, hash, lookup and run fill, row by row. patch5 follows r rows behind patch3, on
// another thread if one is free.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <new>
#include <thread>

#include "cpu/plan/distinct_windows.hpp"
#include "spade_kernels.h"

namespace {

using spade::Map;
using spade::RowScratch;
using spade::Table;
using spade::WindowNumbers;

// "Outside" in the map of patch numbers while it is made: the final value, the count of patches3, is not known yet.
constexpr int32_t outside_numbers = -1;

// ---- Resize, scratch, tables ----

// Source index floor(i * from / to) for i = 0, 1, .., without a division per pixel.
struct Nearest {
    int64_t step, rest_step, to, source = 0, rest = 0;
    Nearest(int64_t from, int64_t size) : step(from / size), rest_step(from % size), to(size) {}
    void next() {
        source += step;
        rest += rest_step;
        if (rest >= to) rest -= to, ++source;
    }
};

// Resizes the symbol map to the level's size, one row after the other.
template <int K>
class Resize {
 public:
    Resize(const spade_plan& plan, const Map<K, uint16_t>& map)
        : plan_(plan), map_(map), y_(plan.shape.map_height, plan.shape.height) {}

    void make_row() {
        constexpr int r = K / 2;
        const uint16_t* from = plan_.symbols + y_.source * plan_.row_stride;
        uint16_t* to = map_.data + (row_ + r) * map_.stride + r;
        const int64_t map_width = plan_.shape.map_width, width = plan_.shape.width;
        Nearest x(map_width, width);
        if (map_width == width)
            std::memcpy(to, from, static_cast<size_t>(width) * sizeof(uint16_t));
        else
            for (int64_t j = 0; j < width; ++j, x.next()) to[j] = from[x.source];
        ++row_;
        y_.next();
    }

 private:
    const spade_plan& plan_;
    const Map<K, uint16_t> map_;
    Nearest y_;
    int64_t row_ = 0;
};

using Progress = std::atomic<int64_t>;  // rows of patch3 that are complete

// Waits until `rows` rows of patch3 are complete.
void wait_for_rows(const Progress& made, int64_t rows) {
    constexpr int spins = 4000;  // some tens of microseconds; a row takes longer only if its thread was interrupted
    for (int i = 0; made.load(std::memory_order_acquire) < rows; ++i) {
        if (i > spins) std::this_thread::yield();
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

// The table and row buffers that number the windows of one map.
struct Numbering {
    uint64_t* slots;
    uint32_t* tags;
    int32_t* first;
    RowScratch row;
};

// The parts of a plan's scratch.
struct Scratch {
    Progress* made;
    uint16_t* symbols;
    int32_t* numbers;
    Numbering three, five;
    int64_t capacity, bytes;

    Table table(const Numbering& of) const { return {of.slots, of.tags, of.first, capacity, 0, 0}; }
};

// Divides the scratch at `base` into parts. With base null, only `bytes` and `capacity` are set.
Scratch layout(const spade_plan_shape& shape, void* base) {
    const int64_t stride = shape.width + shape.kernel_size - 1;
    const int64_t padded = (shape.height + shape.kernel_size - 1) * stride;
    const int64_t pixels = shape.height * shape.width;
    Scratch scratch{};
    scratch.capacity = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(2 * pixels)));
    int64_t at = 0;
    auto take = [&]<typename T>(T*& pointer, int64_t count) {
        if (base != nullptr) pointer = reinterpret_cast<T*>(static_cast<char*>(base) + at);
        at += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    };
    take(scratch.made, 1);
    take(scratch.symbols, padded);
    take(scratch.numbers, padded);
    for (Numbering* of : {&scratch.three, &scratch.five}) {
        take(of->slots, scratch.capacity);
        take(of->tags, pixels);
        take(of->first, pixels);
        take(of->row.seams, stride);
        take(of->row.changed, stride);
        take(of->row.found, shape.width);
        take(of->row.tags, shape.width);
    }
    scratch.bytes = at;
    return scratch;
}

template <int K>
Map<K, int32_t> numbers_of(const spade_plan_shape& shape, const Scratch& scratch) {
    return {scratch.numbers, shape.width + K - 1, shape.height, shape.width};
}

// First run: resizes the symbols, numbers patch3 and reports each row to number_five.
template <int K>
void number_three(const spade_plan& plan, const Scratch& scratch) {
    constexpr int64_t r = K / 2;
    const spade_plan_shape& shape = plan.shape;
    const int64_t stride = shape.width + K - 1, early = r < shape.height ? r : shape.height;
    Map<K, uint16_t> level{scratch.symbols, stride, shape.height, shape.width};
    level.fill_border(static_cast<uint16_t>(shape.n_symbols));
    Map<K, int32_t> numbers = numbers_of<K>(shape, scratch);
    numbers.fill_border(outside_numbers);
    Resize<K> resize(plan, level);
    WindowNumbers<Map<K, uint16_t>> windows(level, scratch.table(scratch.three), scratch.three.row);
    for (int64_t y = 0; y < early; ++y) resize.make_row();
    for (int64_t y = 0; y < shape.height; ++y) {
        if (y + r < shape.height) resize.make_row();
        windows.row(y, numbers.data + (y + r) * stride + r);
        scratch.made->store(y + 1, std::memory_order_release);
    }
    plan.counts->patches3 = windows.count();
}

// First run: numbers patch5, which is the plan's index, as rows of patch3 become complete.
template <int K>
void number_five(const spade_plan& plan, const Scratch& scratch) {
    const spade_plan_shape& shape = plan.shape;
    const Map<K, int32_t> numbers = numbers_of<K>(shape, scratch);
    WindowNumbers<Map<K, int32_t>> windows(numbers, scratch.table(scratch.five), scratch.five.row);
    for (int64_t y = 0; y < shape.height; ++y) {
        const int64_t read = y + K / 2 + 1;
        wait_for_rows(*scratch.made, read < shape.height ? read : shape.height);
        windows.row(y, plan.index + y * shape.width);
    }
    plan.counts->patches5 = windows.count();
}

// Writes the taps of `count` windows, each given by the position of its first appearance.
template <int K, typename T>
void write_windows(const T* data, int64_t stride, const int32_t* first, int64_t count, int32_t* out) {
    for (int64_t number = 0; number < count; ++number)
        for (int row = 0; row < K; ++row)
            for (int tap = 0; tap < K; ++tap) *out++ = static_cast<int32_t>(data[first[number] + row * stride + tap]);
}

// Second run: fills the table patches3.
template <int K>
void write_three(const spade_plan& plan, const Scratch& scratch) {
    write_windows<K>(scratch.symbols, plan.shape.width + K - 1, scratch.three.first, plan.counts->patches3,
                     plan.patches3);
}

// Second run: fills the table patches5.
template <int K>
void write_five(const spade_plan& plan, const Scratch& scratch) {
    const int64_t count = plan.counts->patches5;
    const auto outside = static_cast<int32_t>(plan.counts->patches3);
    write_windows<K>(scratch.numbers, plan.shape.width + K - 1, scratch.five.first, count, plan.patches5);
    spade_plan_rebase(plan.patches5, count * K * K, outside_numbers, 0, outside, plan.patches5);
}

template <int K>
void run(const spade_plan& plan, int64_t item) {
    const Scratch scratch = layout(plan.shape, plan.scratch);
    const bool writes = plan.patches3 != nullptr;
    if (item == 0)
        writes ? write_three<K>(plan, scratch) : number_three<K>(plan, scratch);
    else
        writes ? write_five<K>(plan, scratch) : number_five<K>(plan, scratch);
}

spade_status check(const spade_plan_shape* shape) {
    if (shape == nullptr) return SPADE_ERROR_NULL;
    if (shape->kernel_size != 1 && shape->kernel_size != 3 && shape->kernel_size != 5) return SPADE_ERROR_KERNEL_SIZE;
    if (shape->n_symbols < 1 || shape->n_symbols > SPADE_PLAN_MAX_SYMBOLS) return SPADE_ERROR_N_SYMBOLS;
    for (int64_t size : {shape->map_height, shape->map_width, shape->height, shape->width})
        if (size < 1 || size > SPADE_PLAN_MAX_PIXELS) return SPADE_ERROR_SIZE;
    if ((shape->height + 4) * (shape->width + 4) > SPADE_PLAN_MAX_PIXELS) return SPADE_ERROR_SIZE;
    return SPADE_OK;
}

bool any_null(std::initializer_list<const void*> pointers) {
    for (const void* pointer : pointers)
        if (pointer == nullptr) return true;
    return false;
}

}  // namespace

spade_status spade_plan_scratch_bytes(const spade_plan_shape* shape, int64_t* bytes) {
    if (const spade_status status = check(shape); status != SPADE_OK) return status;
    if (bytes == nullptr) return SPADE_ERROR_NULL;
    *bytes = layout(*shape, nullptr).bytes;
    return SPADE_OK;
}

spade_status spade_plan_first_bad_symbol(const uint16_t* symbols, int64_t count, int32_t n_symbols, int64_t* position) {
    if (any_null({symbols, position})) return SPADE_ERROR_NULL;
    if (n_symbols < 1 || n_symbols > SPADE_PLAN_MAX_SYMBOLS) return SPADE_ERROR_N_SYMBOLS;
    uint16_t largest = 0;  // a branch-free pass; bad symbols are rare
    for (int64_t i = 0; i < count; ++i) largest = symbols[i] > largest ? symbols[i] : largest;
    *position = -1;
    if (largest < n_symbols) return SPADE_OK;
    for (*position = 0; symbols[*position] < n_symbols;) ++*position;
    return SPADE_OK;
}

spade_status spade_plan_start(const spade_plan* plan, int64_t scratch_bytes) {
    if (plan == nullptr) return SPADE_ERROR_NULL;
    if (const spade_status status = check(&plan->shape); status != SPADE_OK) return status;
    if (any_null({plan->symbols, plan->scratch, plan->index, plan->counts})) return SPADE_ERROR_NULL;
    const Scratch parts = layout(plan->shape, plan->scratch);
    if (scratch_bytes < parts.bytes || reinterpret_cast<uintptr_t>(plan->scratch) % 8 != 0) return SPADE_ERROR_SCRATCH;
    new (parts.made) Progress(0);
    return SPADE_OK;
}

int64_t spade_plan_work_items(const spade_plan*) { return 2; }

void spade_plan_run(const spade_plan* plan, int64_t begin, int64_t end) {
    const int32_t k = plan->shape.kernel_size;
    const auto run_item = k == 1 ? run<1> : k == 3 ? run<3> : run<5>;
    for (int64_t item = begin; item < end; ++item) run_item(*plan, item);
}

spade_status spade_plan_rebase(const int32_t* rows, int64_t count, int32_t outside, int32_t offset, int32_t new_outside,
                               int32_t* out) {
    if (any_null({rows, out})) return SPADE_ERROR_NULL;
    for (int64_t i = 0; i < count; ++i) out[i] = rows[i] == outside ? new_outside : rows[i] + offset;
    return SPADE_OK;
}
