// The plan of one resolution level: which pixels see the same labels, so that gamma and beta are computed once for
// them.
//
//   patch3(y, x) = number of the window      s[y - r .. y + r, x - r .. x + r]
//   patch5(y, x) = number of the window patch3[y - r .. y + r, x - r .. x + r],    r = k / 2
//
// The number of a window is the rank of its first appearance in a row-major scan. s is the symbol map brought to [h, w]
// by NEAREST; outside the image both maps continue with a value of their own.
//
// Layout: both maps lie padded by r on every side, so a window is k rows of k neighbours and needs no bounds.
//
// Bytes: a symbol (2) and a patch number (4) are written once and read by the k rows around them, from cache. The table
// grows with the distinct windows, not with the pixels.
//
// Operations: 2k compares per pixel, vectorised, find the windows that differ from their left neighbour. Only those are
// hashed (k multiplications) and looked up; all others continue a run.
//
// Fused: resize and padding; difference, hash, lookup and run fill, row by row.

#include <bit>
#include <cstddef>
#include <initializer_list>

#include "number_windows.hpp"
#include "spade_kernels.h"

namespace {

using spade::Map;
using spade::number_windows;
using spade::Table;

// ---- Resize, scratch, tables ----

// Source index floor(i * from / to) for i = 0, 1, ..: without a division per pixel.
struct Nearest {
    int64_t step, rest_step, to, source = 0, rest = 0;
    Nearest(int64_t from, int64_t size) : step(from / size), rest_step(from % size), to(size) {}
    void next() {
        source += step;
        rest += rest_step;
        if (rest >= to) rest -= to, ++source;
    }
};

template <int K>
void resize_padded(const spade_plan_shape& shape, const uint16_t* symbols, int64_t row_stride, Map<K, uint16_t>& map) {
    constexpr int r = K / 2;
    map.fill_border(static_cast<uint16_t>(shape.n_symbols));
    Nearest y(shape.map_height, shape.height);
    for (int64_t i = 0; i < shape.height; ++i, y.next()) {
        const uint16_t* from = symbols + y.source * row_stride;
        uint16_t* to = map.data + (i + r) * map.stride + r;
        Nearest x(shape.map_width, shape.width);
        for (int64_t j = 0; j < shape.width; ++j, x.next()) to[j] = from[x.source];
    }
}

struct Scratch {
    uint16_t* symbols;
    int32_t* numbers;
    int32_t *first3, *first5;
    uint32_t* tags;
    uint64_t* slots;
    uint8_t *seams, *changed;
    int64_t capacity, bytes;
};

// With base null, only `bytes` and `capacity` mean anything.
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
    take(scratch.slots, scratch.capacity);
    take(scratch.symbols, padded);
    take(scratch.numbers, padded);
    take(scratch.first3, pixels);
    take(scratch.first5, pixels);
    take(scratch.tags, pixels);
    take(scratch.seams, stride);
    take(scratch.changed, stride);
    scratch.bytes = at;
    return scratch;
}

template <int K>
spade_plan_counts find(const spade_plan_shape& shape, const uint16_t* symbols, int64_t row_stride,
                       const Scratch& scratch, int32_t* index) {
    const int64_t h = shape.height, w = shape.width, stride = w + K - 1;
    Map<K, uint16_t> level{scratch.symbols, stride, h, w};
    Map<K, int32_t> patches{scratch.numbers, stride, h, w};
    resize_padded<K>(shape, symbols, row_stride, level);

    Table table{scratch.slots, scratch.tags, scratch.first3, scratch.capacity, 0, 0};
    number_windows(level, table, scratch.seams, scratch.changed, patches.data + K / 2 * stride + K / 2, stride);
    const int64_t distinct3 = table.count;

    patches.fill_border(static_cast<int32_t>(distinct3));
    table.first = scratch.first5;
    number_windows(patches, table, scratch.seams, scratch.changed, index, w);
    return {distinct3, table.count};
}

template <int K, typename T>
void write_windows(const T* data, int64_t stride, const int32_t* first, int64_t count, int32_t* out) {
    for (int64_t number = 0; number < count; ++number)
        for (int row = 0; row < K; ++row)
            for (int tap = 0; tap < K; ++tap) *out++ = static_cast<int32_t>(data[first[number] + row * stride + tap]);
}

template <int K>
void write(const spade_plan_shape& shape, const Scratch& scratch, const spade_plan_counts& counts, int32_t* patches3,
           int32_t* patches5) {
    const int64_t stride = shape.width + K - 1;
    write_windows<K>(scratch.symbols, stride, scratch.first3, counts.patches3, patches3);
    write_windows<K>(scratch.numbers, stride, scratch.first5, counts.patches5, patches5);
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

const char* spade_status_message(spade_status status) {
    switch (status) {
        case SPADE_OK:
            return "no error";
        case SPADE_ERROR_NULL:
            return "a required pointer is null";
        case SPADE_ERROR_SIZE:
            return "a height or width is below 1, or the padded level is above 2^28 pixels";
        case SPADE_ERROR_N_SYMBOLS:
            return "n_symbols is not in 1..65535";
        case SPADE_ERROR_KERNEL_SIZE:
            return "kernel_size is not 1, 3 or 5";
        case SPADE_ERROR_SCRATCH:
            return "scratch is too small or not aligned to 8 bytes";
        case SPADE_ERROR_STEP:
            return "a step's kind is unknown or its overlaps are negative";
        case SPADE_ERROR_TIER:
            return "a step's tier is unknown or this processor does not run it";
        case SPADE_ERROR_MEMORY:
            return "the pool's scratch could not be allocated";
    }
    return "unknown status";
}

spade_status spade_plan_scratch_bytes(const spade_plan_shape* shape, int64_t* bytes) {
    if (const spade_status status = check(shape); status != SPADE_OK) return status;
    if (bytes == nullptr) return SPADE_ERROR_NULL;
    *bytes = layout(*shape, nullptr).bytes;
    return SPADE_OK;
}

spade_status spade_plan_first_bad_symbol(const uint16_t* symbols, int64_t count, int32_t n_symbols, int64_t* position) {
    if (any_null({symbols, position})) return SPADE_ERROR_NULL;
    if (n_symbols < 1 || n_symbols > SPADE_PLAN_MAX_SYMBOLS) return SPADE_ERROR_N_SYMBOLS;
    uint16_t largest = 0;  // a branch-free pass: bad symbols are the exception
    for (int64_t i = 0; i < count; ++i) largest = symbols[i] > largest ? symbols[i] : largest;
    *position = -1;
    if (largest < n_symbols) return SPADE_OK;
    for (*position = 0; symbols[*position] < n_symbols;) ++*position;
    return SPADE_OK;
}

spade_status spade_plan_find(const spade_plan_shape* shape, const uint16_t* symbols, int64_t row_stride_elements,
                             void* scratch, int64_t scratch_bytes, int32_t* index, spade_plan_counts* counts) {
    if (const spade_status status = check(shape); status != SPADE_OK) return status;
    if (any_null({symbols, scratch, index, counts})) return SPADE_ERROR_NULL;
    const Scratch parts = layout(*shape, scratch);
    if (scratch_bytes < parts.bytes || reinterpret_cast<uintptr_t>(scratch) % 8 != 0) return SPADE_ERROR_SCRATCH;
    const auto run = shape->kernel_size == 1 ? find<1> : shape->kernel_size == 3 ? find<3> : find<5>;
    *counts = run(*shape, symbols, row_stride_elements, parts, index);
    return SPADE_OK;
}

spade_status spade_plan_write(const spade_plan_shape* shape, const void* scratch, const spade_plan_counts* counts,
                              int32_t* patches3, int32_t* patches5) {
    if (const spade_status status = check(shape); status != SPADE_OK) return status;
    if (any_null({scratch, counts, patches3, patches5})) return SPADE_ERROR_NULL;
    const auto run = shape->kernel_size == 1 ? write<1> : shape->kernel_size == 3 ? write<3> : write<5>;
    run(*shape, layout(*shape, const_cast<void*>(scratch)), *counts, patches3, patches5);
    return SPADE_OK;
}

spade_status spade_plan_rebase(const int32_t* rows, int64_t count, int32_t outside, int32_t offset, int32_t new_outside,
                               int32_t* out) {
    if (any_null({rows, out})) return SPADE_ERROR_NULL;
    for (int64_t i = 0; i < count; ++i) out[i] = rows[i] == outside ? new_outside : rows[i] + offset;
    return SPADE_OK;
}
