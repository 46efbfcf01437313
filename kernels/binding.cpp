// Python names for the functions of spade_kernels.h. This file binds and owns the arrays; it computes nothing.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "spade_kernels.h"

namespace nb = nanobind;

namespace {

using Symbols = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using RowsOut = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::numpy, int32_t, nb::ndim<2>>;
using LevelArrays = std::tuple<Array, Array, Array>;
using Sizes = std::vector<std::pair<int64_t, int64_t>>;

void check(spade_status status) {
    if (status != SPADE_OK) throw std::invalid_argument(spade_status_message(status));
}

struct Buffer {
    std::unique_ptr<int32_t[]> data;
    size_t rows, columns;
    Buffer(int64_t r, int64_t c)
        : data(new int32_t[static_cast<size_t>(r) * static_cast<size_t>(c)]),
          rows(static_cast<size_t>(r)),
          columns(static_cast<size_t>(c)) {}
};

struct Level {
    Buffer patches3, patches5, index;
};

Array to_numpy(Buffer& buffer) {
    int32_t* data = buffer.data.release();
    nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<int32_t*>(pointer); });
    return Array(data, {buffer.rows, buffer.columns}, owner);
}

std::vector<Level> plan_levels(const uint16_t* symbols, spade_plan_shape shape, const Sizes& sizes) {
    int64_t scratch_bytes = 0;
    for (const auto& [height, width] : sizes) {
        int64_t bytes = 0;
        shape.height = height, shape.width = width;
        check(spade_plan_scratch_bytes(&shape, &bytes));
        scratch_bytes = std::max(scratch_bytes, bytes);
    }
    const std::unique_ptr<uint64_t[]> scratch(new uint64_t[static_cast<size_t>(scratch_bytes) / sizeof(uint64_t)]);
    const int64_t taps = shape.kernel_size * shape.kernel_size;
    std::vector<Level> levels;
    for (const auto& [height, width] : sizes) {
        shape.height = height, shape.width = width;
        Buffer index(height, width);
        spade_plan_counts counts{};
        check(
            spade_plan_find(&shape, symbols, shape.map_width, scratch.get(), scratch_bytes, index.data.get(), &counts));
        Level level{Buffer(counts.patches3, taps), Buffer(counts.patches5, taps), std::move(index)};
        check(spade_plan_write(&shape, scratch.get(), &counts, level.patches3.data.get(), level.patches5.data.get()));
        levels.push_back(std::move(level));
    }
    return levels;
}

std::vector<LevelArrays> plan_map(const Symbols& symbols, const Sizes& sizes, int32_t n_symbols, int32_t kernel_size) {
    const spade_plan_shape shape{
        static_cast<int64_t>(symbols.shape(0)), static_cast<int64_t>(symbols.shape(1)), 0, 0, n_symbols, kernel_size};
    std::vector<Level> levels;
    {
        nb::gil_scoped_release release;
        levels = plan_levels(symbols.data(), shape, sizes);
    }
    std::vector<LevelArrays> arrays;
    for (Level& level : levels)
        arrays.emplace_back(to_numpy(level.patches3), to_numpy(level.patches5), to_numpy(level.index));
    return arrays;
}

int64_t first_bad_symbol(const nb::ndarray<const uint16_t, nb::c_contig, nb::device::cpu>& symbols, int32_t n_symbols) {
    int64_t position = -1;
    nb::gil_scoped_release release;
    check(spade_plan_first_bad_symbol(symbols.data(), static_cast<int64_t>(symbols.size()), n_symbols, &position));
    return position;
}

void rebase(const Rows& rows, int32_t outside, int32_t offset, int32_t new_outside, const RowsOut& out) {
    if (rows.size() != out.size()) throw std::invalid_argument("rows and out differ in size");
    nb::gil_scoped_release release;
    check(spade_plan_rebase(rows.data(), static_cast<int64_t>(rows.size()), outside, offset, new_outside, out.data()));
}

}  // namespace

NB_MODULE(_native, module) {
    module.attr("MAX_SYMBOLS") = SPADE_PLAN_MAX_SYMBOLS;
    module.attr("MAX_PIXELS") = SPADE_PLAN_MAX_PIXELS;
    module.def("plan_map", &plan_map, nb::arg("symbols").noconvert(), nb::arg("sizes"), nb::arg("n_symbols"),
               nb::arg("kernel_size"), "(patches3, patches5, index) of every level of one symbol map [H, W].");
    module.def("first_bad_symbol", &first_bad_symbol, nb::arg("symbols").noconvert(), nb::arg("n_symbols"),
               "Row-major position of the first symbol that is not below n_symbols, or -1.");
    module.def("rebase", &rebase, nb::arg("rows").noconvert(), nb::arg("outside"), nb::arg("offset"),
               nb::arg("new_outside"), nb::arg("out").noconvert(),
               "out = where(rows == outside, new_outside, rows + offset).");
}
