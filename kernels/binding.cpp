// The Python module kernels._native: binds the functions of spade_kernels.h and checks the sizes of arrays.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/plan/patch_table.hpp"
#include "cpu/plan/plan_levels.hpp"
#include "cpu/plan/volume_windows.hpp"
#include "cpu/step_fields.hpp"
#include "spade_kernels.h"

namespace nb = nanobind;

namespace {

using spade::check;

using Symbols = nb::ndarray<const uint16_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using RowsOut = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::numpy, int32_t, nb::ndim<2>>;
using LevelArrays = std::tuple<Array, Array, Array>;
using Sizes = std::vector<std::pair<int64_t, int64_t>>;

// Hands the memory of a buffer to a NumPy array.
Array to_numpy(spade::Buffer& buffer) {
    int32_t* data = buffer.data.release();
    nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<int32_t*>(pointer); });
    return Array(data, {buffer.rows, buffer.columns}, owner);
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

// ---- Symbols ----

using Labels = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Instances = nb::ndarray<const int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using SymbolsOut = nb::ndarray<uint16_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <typename A, typename B>
bool same_shape(const A& a, const B& b) {
    return a.shape(0) == b.shape(0) && a.shape(1) == b.shape(1) && a.shape(2) == b.shape(2);
}

bool symbols(const Labels& labels, const std::optional<Instances>& instances, int32_t classes, int32_t dont_care_id,
             const SymbolsOut& out) {
    if (!same_shape(labels, out) || (instances && !same_shape(labels, *instances)))
        throw std::invalid_argument("labels, instances and out differ in shape");
    const spade_symbols_shape shape{static_cast<int64_t>(labels.shape(0)), static_cast<int64_t>(labels.shape(1)),
                                    static_cast<int64_t>(labels.shape(2)), classes, dont_care_id};
    int32_t all_known = 0;
    nb::gil_scoped_release release;
    check(spade_symbols(&shape, labels.data(), instances ? instances->data() : nullptr, out.data(), &all_known));
    return all_known != 0;
}

// ---- Steps ----

// {kind of step: (number, its fields)}.
nb::dict step_kinds() {
    nb::dict kinds;
    for (const auto& [name, kind, fields] : spade::step_fields())
        kinds[name.c_str()] = nb::make_tuple(static_cast<int>(kind), fields);
    return kinds;
}

using Weight = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using WeightInt8 = nb::ndarray<const int8_t, nb::c_contig, nb::device::cpu>;
using Packed = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Steps = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Seconds = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void check_size(const std::string& name, int64_t expected, size_t size) {
    if (static_cast<int64_t>(size) == expected) return;
    throw std::invalid_argument("[native] expected " + name + " of " + std::to_string(expected) + " elements but got " +
                                std::to_string(size));
}

template <typename AnyWeight>
void check_packing(int32_t isa, const AnyWeight& weight, int64_t expected, const Packed& packed, int64_t bytes) {
    if (isa < 0 || isa >= SPADE_ISAS)
        throw std::invalid_argument("[native] expected an ISA of spade_isa but got " + std::to_string(isa));
    check_size("weight", expected, weight.size());
    check_size("packed", bytes, packed.size());
}

void codebook_pack(int32_t isa, const Weight& weight, int64_t taps, int64_t channels, const Packed& packed) {
    check_packing(isa, weight, taps * SPADE_HIDDEN * 2 * channels, packed,
                  spade_codebook_packed_bytes(isa, taps, channels));
    nb::gil_scoped_release release;
    spade_codebook_pack(isa, weight.data(), taps, channels, packed.data());
}

void codebook_int8_pack(const WeightInt8& weight, int64_t taps, int64_t channels, const Packed& packed) {
    if (spade_isa_supported(SPADE_ISA_AMX) == 0) throw std::invalid_argument(spade_status_message(SPADE_ERROR_ISA));
    check_packing(SPADE_ISA_AMX, weight, taps * SPADE_HIDDEN * 2 * channels, packed,
                  spade_codebook_int8_packed_bytes(taps, channels));
    nb::gil_scoped_release release;
    spade_codebook_int8_pack(weight.data(), taps, channels, packed.data());
}

void conv_pack(int32_t isa, const Weight& weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
               const Packed& packed) {
    check_packing(isa, weight, out_channels * in_channels * kernel_size * kernel_size, packed,
                  spade_conv_packed_bytes(isa, out_channels, in_channels, kernel_size));
    nb::gil_scoped_release release;
    spade_conv_pack(isa, weight.data(), out_channels, in_channels, kernel_size, packed.data());
}

int64_t conv_peak(int32_t isa, int64_t count) {
    if (spade_isa_supported(isa) == 0) throw std::invalid_argument(spade_status_message(SPADE_ERROR_ISA));
    nb::gil_scoped_release release;
    return spade_conv_peak(isa, count);
}

// ---- Programs ----

class Pool {
 public:
    explicit Pool(int64_t threads) : threads(threads), pool_(spade_pool_create(threads), &spade_pool_destroy) {
        if (pool_ == nullptr) throw std::runtime_error("the threads of a pool could not be started");
    }

    void run(const Steps& steps, const Seconds& seconds) {
        if (steps.size() % sizeof(spade_step) != 0 || reinterpret_cast<uintptr_t>(steps.data()) % 8 != 0)
            throw std::invalid_argument("steps are not whole or not aligned");
        check_size("seconds", SPADE_STEP_KINDS, seconds.size());
        nb::gil_scoped_release release;
        check(spade_run(reinterpret_cast<const spade_step*>(steps.data()),
                        static_cast<int64_t>(steps.size() / sizeof(spade_step)), pool_.get(), seconds.data()));
    }

    spade_pool* get() const { return pool_.get(); }

    const int64_t threads;
    std::mutex planning;  // guards plan_scratch
    spade::Scratch plan_scratch;

 private:
    std::unique_ptr<spade_pool, void (*)(spade_pool*)> pool_;
};

// ---- Plans ----

std::vector<std::vector<LevelArrays>> plan_maps(const Symbols& symbols, const Sizes& sizes, int32_t n_symbols,
                                                int32_t kernel_size, Pool* pool) {
    const auto n = static_cast<int64_t>(symbols.shape(0)), height = static_cast<int64_t>(symbols.shape(1)),
               width = static_cast<int64_t>(symbols.shape(2));
    std::vector<spade_plan_shape> shapes;
    for (const auto& [h, w] : sizes) shapes.push_back({height, width, h, w, n_symbols, kernel_size});
    std::vector<spade::Level> levels;
    {
        nb::gil_scoped_release release;
        spade::Scratch own;
        std::unique_lock<std::mutex> lock;
        if (pool != nullptr) lock = std::unique_lock(pool->planning);
        // One map a thread at the same time, because each map that is planned takes scratch.
        const int64_t together = pool == nullptr ? 1 : pool->threads;
        for (int64_t first = 0; first < n; first += together)
            for (spade::Level& level : spade::plan_levels(
                     symbols.data() + first * height * width, std::min(together, n - first), shapes,
                     pool == nullptr ? nullptr : pool->get(), pool == nullptr ? own : pool->plan_scratch))
                levels.push_back(std::move(level));
    }
    std::vector<std::vector<LevelArrays>> maps(static_cast<size_t>(n));
    for (size_t i = 0; i < levels.size(); ++i)
        maps[i / shapes.size()].emplace_back(to_numpy(levels[i].patches3), to_numpy(levels[i].patches5),
                                             to_numpy(levels[i].index));
    return maps;
}

using Volume = nb::ndarray<const int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

std::pair<Array, Array> volume_windows(const Volume& ids, int32_t outside, int32_t kernel_size) {
    const spade_volume_shape shape{static_cast<int64_t>(ids.shape(0)), static_cast<int64_t>(ids.shape(1)),
                                   static_cast<int64_t>(ids.shape(2)), outside, kernel_size};
    std::optional<spade::VolumeWindows> found;
    {
        nb::gil_scoped_release release;
        found = spade::volume_windows(ids.data(), shape);
    }
    return {to_numpy(found->windows), to_numpy(found->index)};
}

// ---- Patches ----

using Table = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

int64_t place(spade::PatchTable& table, const Table& patches3, const Table& patches5, const RowsOut& index) {
    nb::gil_scoped_release release;
    return table.place(patches3.data(), static_cast<int64_t>(patches3.shape(0)), patches5.data(),
                       static_cast<int64_t>(patches5.shape(0)), index.data(), static_cast<int64_t>(index.size()));
}

std::tuple<Array, Array, int64_t> new_patches(spade::PatchTable& table, int64_t taps) {
    const auto copied = [taps](const std::vector<int32_t>& rows) {
        spade::Buffer buffer(static_cast<int64_t>(rows.size()) / taps, taps);
        std::copy(rows.begin(), rows.end(), buffer.data.get());
        return to_numpy(buffer);
    };
    return {copied(table.new_patches3()), copied(table.new_patches5()), table.first_slot()};
}

}  // namespace

NB_MODULE(_native, module) {
    module.attr("MAX_SYMBOLS") = SPADE_PLAN_MAX_SYMBOLS;
    module.attr("MAX_PIXELS") = SPADE_PLAN_MAX_PIXELS;
    module.def("first_bad_symbol", &first_bad_symbol, nb::arg("symbols").noconvert(), nb::arg("n_symbols"),
               "Row-major position of the first symbol that is n_symbols or larger, or -1.");
    module.def("rebase", &rebase, nb::arg("rows").noconvert(), nb::arg("outside"), nb::arg("offset"),
               nb::arg("new_outside"), nb::arg("out").noconvert(),
               "out = where(rows == outside, new_outside, rows + offset).");

    module.def("symbols", &symbols, nb::arg("labels").noconvert(), nb::arg("instances").noconvert().none(),
               nb::arg("classes"), nb::arg("dont_care_id"), nb::arg("out").noconvert(),
               "Writes a request's symbols; returns whether every id is below classes.");

    module.attr("ISAS") = nb::make_tuple("avx2", "avx512", "avx512bf16", "amx");
    module.attr("HIDDEN") = SPADE_HIDDEN;
    module.attr("STEP_BYTES") = sizeof(spade_step);
    module.attr("STEP_ARGS_OFFSET") = offsetof(spade_step, args);
    module.attr("STEP_KINDS") = step_kinds();
    module.attr("SECONDS") = static_cast<int>(SPADE_STEP_KINDS);
    module.def(
        "isa_supported", [](int32_t isa) { return spade_isa_supported(isa) != 0; }, nb::arg("isa"),
        "Whether this processor runs the ISA.");
    module.def("codebook_packed_bytes", &spade_codebook_packed_bytes, nb::arg("isa"), nb::arg("taps"),
               nb::arg("channels"), "Size of packed codebook weights.");
    module.def("codebook_pack", &codebook_pack, nb::arg("isa"), nb::arg("weight").noconvert(), nb::arg("taps"),
               nb::arg("channels"), nb::arg("packed").noconvert(), "Packs codebook weights for an ISA.");
    module.def("codebook_int8_packed_bytes", &spade_codebook_int8_packed_bytes, nb::arg("taps"), nb::arg("channels"),
               "Size of packed int8 codebook weights.");
    module.def("codebook_int8_pack", &codebook_int8_pack, nb::arg("weight").noconvert(), nb::arg("taps"),
               nb::arg("channels"), nb::arg("packed").noconvert(), "Packs int8 codebook weights.");
    module.def("conv_packed_bytes", &spade_conv_packed_bytes, nb::arg("isa"), nb::arg("out_channels"),
               nb::arg("in_channels"), nb::arg("kernel_size"), "Size of packed conv weights.");
    module.def("conv_pack", &conv_pack, nb::arg("isa"), nb::arg("weight").noconvert(), nb::arg("out_channels"),
               nb::arg("in_channels"), nb::arg("kernel_size"), nb::arg("packed").noconvert(),
               "Packs conv weights for an ISA.");
    module.def("conv_peak", &conv_peak, nb::arg("isa"), nb::arg("count"),
               "Does at least count operations of a conv in registers; returns how many it did.");
    nb::class_<Pool>(module, "Pool", "Threads that run programs: the calling thread and threads - 1 of its own.")
        .def(nb::init<int64_t>(), nb::arg("threads"))
        .def("run", &Pool::run, nb::arg("steps").noconvert(), nb::arg("seconds").noconvert(),
             "Runs the steps without the GIL; adds the seconds of each kind of step.");
    module.def(
        "plan_maps", &plan_maps, nb::arg("symbols").noconvert(), nb::arg("sizes"), nb::arg("n_symbols"),
        nb::arg("kernel_size"), nb::arg("pool").none(),
        "(patches3, patches5, index) of every level of each symbol map [N, H, W]; runs on a pool or on this thread.");
    module.def("volume_windows", &volume_windows, nb::arg("ids").noconvert(), nb::arg("outside"),
               nb::arg("kernel_size"),
               "The distinct windows of a volume [D, H, W] and each voxel's window [D * H, W].");
    nb::class_<spade::PatchTable>(module, "PatchTable",
                                  "The patches of a level that were seen before, and their slots.")
        .def(nb::init<int64_t, int32_t, int64_t>(), nb::arg("most"), nb::arg("outside"), nb::arg("kernel_size"))
        .def("horizon", &spade::PatchTable::horizon, nb::arg("bound"), "Lowest position that a call would leave known.")
        .def("begin", &spade::PatchTable::begin, nb::arg("bound"), "Starts a call of at most `bound` new patches.")
        .def("forget", &spade::PatchTable::forget, "Forgets every patch.")
        .def("place", &place, nb::arg("patches3").noconvert(), nb::arg("patches5").noconvert(),
             nb::arg("index").noconvert(), "Replaces a plan's rows in index by slots; returns the lowest position.")
        .def("new_patches", &new_patches, nb::arg("taps"),
             "(patches3, patches5, first slot) of the call's new patches.");
}
