// Python names for the functions of spade_kernels.h. This file binds and owns the arrays; it computes nothing.

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
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "spade_kernels.h"

namespace nb = nanobind;

namespace {

using Symbols = nb::ndarray<const uint16_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
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

Array to_numpy(Buffer& buffer) {
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

// A field of a step's arguments: name, offset, and NumPy type (a pointer is its address).
using Field = std::tuple<std::string, size_t, std::string>;

template <typename Type>
Field field(const char* name, size_t offset) {
    return {name, offset, std::is_pointer_v<Type> ? "u8" : std::is_integral_v<Type> ? "i8" : "f8"};
}

#define SPADE_FIELD(name) field<decltype(Args::name)>(#name, offsetof(Args, name))

std::vector<Field> embed_fields() {
    using Args = spade_embed;
    return {SPADE_FIELD(table), SPADE_FIELD(bias), SPADE_FIELD(patches),  SPADE_FIELD(out),
            SPADE_FIELD(rows),  SPADE_FIELD(taps), SPADE_FIELD(symbols),  SPADE_FIELD(depth),
            SPADE_FIELD(width), SPADE_FIELD(relu), SPADE_FIELD(zero_row), SPADE_FIELD(as_bytes)};
}

std::vector<Field> codebook_fields() {
    using Args = spade_codebook;
    return {SPADE_FIELD(actv),      SPADE_FIELD(patches),    SPADE_FIELD(weight), SPADE_FIELD(bias),
            SPADE_FIELD(entries),   SPADE_FIELD(entry_rows), SPADE_FIELD(rows),   SPADE_FIELD(taps),
            SPADE_FIELD(actv_rows), SPADE_FIELD(blocks),     SPADE_FIELD(form),   SPADE_FIELD(scale),
            SPADE_FIELD(windows),   SPADE_FIELD(interior),   SPADE_FIELD(symbols)};
}

std::vector<Field> modulate_fields() {
    using Args = spade_modulate;
    return {SPADE_FIELD(x),      SPADE_FIELD(entries), SPADE_FIELD(entry_rows), SPADE_FIELD(index),  SPADE_FIELD(mean),
            SPADE_FIELD(rstd),   SPADE_FIELD(out),     SPADE_FIELD(n),          SPADE_FIELD(height), SPADE_FIELD(width),
            SPADE_FIELD(blocks), SPADE_FIELD(shift),   SPADE_FIELD(leaky)};
}

std::vector<Field> norm_fields() {
    using Args = spade_norm;
    return {SPADE_FIELD(x),      SPADE_FIELD(mean),  SPADE_FIELD(rstd),   SPADE_FIELD(n),
            SPADE_FIELD(height), SPADE_FIELD(width), SPADE_FIELD(blocks), SPADE_FIELD(epsilon)};
}

std::vector<Field> image_fields() {
    using Args = spade_image;
    return {SPADE_FIELD(x), SPADE_FIELD(values), SPADE_FIELD(pixels),
            SPADE_FIELD(n), SPADE_FIELD(height), SPADE_FIELD(width)};
}

std::vector<Field> conv_fields() {
    using Args = spade_conv;
    return {SPADE_FIELD(x),           SPADE_FIELD(weight),
            SPADE_FIELD(bias),        SPADE_FIELD(residual),
            SPADE_FIELD(y),           SPADE_FIELD(n),
            SPADE_FIELD(height),      SPADE_FIELD(width),
            SPADE_FIELD(in_channels), SPADE_FIELD(out_channels),
            SPADE_FIELD(kernel_size), SPADE_FIELD(residual_shift)};
}

// The fields of both pairs: those of the conv as `conv_<name>`, those of the shortcut as `shortcut_<..>`.
std::vector<Field> modulated_conv_fields() {
    using Args = spade_modulated_conv;
    std::vector<Field> fields{SPADE_FIELD(has_shortcut)};
    const auto add = [&fields](const std::string& prefix, size_t start, const std::vector<Field>& of) {
        for (const auto& [name, offset, format] : of) fields.emplace_back(prefix + name, start + offset, format);
    };
    add("", offsetof(Args, modulate), modulate_fields());
    add("conv_", offsetof(Args, conv), conv_fields());
    add("shortcut_", offsetof(Args, shortcut_modulate), modulate_fields());
    add("shortcut_conv_", offsetof(Args, shortcut), conv_fields());
    return fields;
}

#undef SPADE_FIELD

// Name of a kind of step: its number and fields.
nb::dict step_kinds() {
    nb::dict kinds;
    kinds["embed"] = nb::make_tuple(static_cast<int>(SPADE_STEP_EMBED), embed_fields());
    kinds["codebook"] = nb::make_tuple(static_cast<int>(SPADE_STEP_CODEBOOK), codebook_fields());
    kinds["modulate"] = nb::make_tuple(static_cast<int>(SPADE_STEP_MODULATE), modulate_fields());
    kinds["norm"] = nb::make_tuple(static_cast<int>(SPADE_STEP_NORM), norm_fields());
    kinds["image"] = nb::make_tuple(static_cast<int>(SPADE_STEP_IMAGE), image_fields());
    kinds["conv"] = nb::make_tuple(static_cast<int>(SPADE_STEP_CONV), conv_fields());
    kinds["modulated_conv"] = nb::make_tuple(static_cast<int>(SPADE_STEP_MODULATED_CONV), modulated_conv_fields());
    return kinds;
}

using Weight = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using WeightInt8 = nb::ndarray<const int8_t, nb::c_contig, nb::device::cpu>;
using Packed = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Steps = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Seconds = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename AnyWeight>
void check_packing(int32_t isa, const AnyWeight& weight, int64_t expected, const Packed& packed, int64_t bytes) {
    if (isa < 0 || isa >= SPADE_ISAS) throw std::invalid_argument("unknown isa");
    if (static_cast<int64_t>(weight.size()) != expected) throw std::invalid_argument("weight has another size");
    if (static_cast<int64_t>(packed.size()) != bytes) throw std::invalid_argument("packed has another size");
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

// Memory that is kept for the next call, which may want more.
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

class Pool {
 public:
    explicit Pool(int64_t threads) : threads(threads), pool_(spade_pool_create(threads), &spade_pool_destroy) {
        if (pool_ == nullptr) throw std::runtime_error("the threads of a pool could not be started");
    }

    void run(const Steps& steps, const Seconds& seconds) {
        if (steps.size() % sizeof(spade_step) != 0 || reinterpret_cast<uintptr_t>(steps.data()) % 8 != 0)
            throw std::invalid_argument("steps are not whole or not aligned");
        if (seconds.size() != SPADE_STEP_KINDS) throw std::invalid_argument("seconds has another size");
        nb::gil_scoped_release release;
        run_steps(reinterpret_cast<const spade_step*>(steps.data()), steps.size() / sizeof(spade_step), seconds.data());
    }

    void run_steps(const spade_step* steps, size_t count, double* seconds) {
        check(spade_run(steps, static_cast<int64_t>(count), pool_.get(), seconds));
    }

    const int64_t threads;
    std::mutex planning;  // holds plan_scratch
    Scratch plan_scratch;

 private:
    std::unique_ptr<spade_pool, void (*)(spade_pool*)> pool_;
};

// ---- Plans ----

// One level of one map.
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

// By the pool, each beside the others, or by this thread.
void run_plans(std::vector<spade_step>& steps, Pool* pool) {
    for (size_t i = 0; i < steps.size(); ++i) steps[i].overlaps = static_cast<int64_t>(i);
    if (pool != nullptr) return pool->run_steps(steps.data(), steps.size(), nullptr);
    for (const spade_step& step : steps) spade_plan_run(&step.args.plan, 0, spade_plan_units(&step.args.plan));
}

// The levels of `maps` maps, one behind the other, which are planned together.
std::vector<Level> plan_levels(const uint16_t* symbols, int64_t maps, const std::vector<spade_plan_shape>& shapes,
                               Pool* pool, Scratch& scratch) {
    std::vector<int64_t> bytes(shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i) check(spade_plan_scratch_bytes(&shapes[i], &bytes[i]));
    auto* memory = static_cast<char*>(scratch.reserve(maps * std::accumulate(bytes.begin(), bytes.end(), int64_t{0})));
    std::vector<size_t> order(shapes.size());  // large levels first, for balance
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

std::vector<std::vector<LevelArrays>> plan_maps(const Symbols& symbols, const Sizes& sizes, int32_t n_symbols,
                                                int32_t kernel_size, Pool* pool) {
    const auto n = static_cast<int64_t>(symbols.shape(0)), height = static_cast<int64_t>(symbols.shape(1)),
               width = static_cast<int64_t>(symbols.shape(2));
    std::vector<spade_plan_shape> shapes;
    for (const auto& [h, w] : sizes) shapes.push_back({height, width, h, w, n_symbols, kernel_size});
    std::vector<Level> levels;
    {
        nb::gil_scoped_release release;
        Scratch own;
        std::unique_lock<std::mutex> lock;
        if (pool != nullptr) lock = std::unique_lock(pool->planning);
        const int64_t together = pool == nullptr ? 1 : pool->threads;  // maps, each of which takes scratch
        for (int64_t first = 0; first < n; first += together)
            for (Level& level : plan_levels(symbols.data() + first * height * width, std::min(together, n - first),
                                            shapes, pool, pool == nullptr ? own : pool->plan_scratch))
                levels.push_back(std::move(level));
    }
    std::vector<std::vector<LevelArrays>> maps(static_cast<size_t>(n));
    for (size_t i = 0; i < levels.size(); ++i)
        maps[i / shapes.size()].emplace_back(to_numpy(levels[i].patches3), to_numpy(levels[i].patches5),
                                             to_numpy(levels[i].index));
    return maps;
}

}  // namespace

NB_MODULE(_native, module) {
    module.attr("MAX_SYMBOLS") = SPADE_PLAN_MAX_SYMBOLS;
    module.attr("MAX_PIXELS") = SPADE_PLAN_MAX_PIXELS;
    module.def("first_bad_symbol", &first_bad_symbol, nb::arg("symbols").noconvert(), nb::arg("n_symbols"),
               "Row-major position of the first symbol that is not below n_symbols, or -1.");
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
        "Whether this processor runs the isa.");
    module.def("codebook_packed_bytes", &spade_codebook_packed_bytes, nb::arg("isa"), nb::arg("taps"),
               nb::arg("channels"), "Size of packed codebook weights.");
    module.def("codebook_pack", &codebook_pack, nb::arg("isa"), nb::arg("weight").noconvert(), nb::arg("taps"),
               nb::arg("channels"), nb::arg("packed").noconvert(), "Packs codebook weights for a isa.");
    module.def("codebook_int8_packed_bytes", &spade_codebook_int8_packed_bytes, nb::arg("taps"), nb::arg("channels"),
               "Size of packed int8 codebook weights.");
    module.def("codebook_int8_pack", &codebook_int8_pack, nb::arg("weight").noconvert(), nb::arg("taps"),
               nb::arg("channels"), nb::arg("packed").noconvert(), "Packs int8 codebook weights.");
    module.def("conv_packed_bytes", &spade_conv_packed_bytes, nb::arg("isa"), nb::arg("out_channels"),
               nb::arg("in_channels"), nb::arg("kernel_size"), "Size of packed conv weights.");
    module.def("conv_pack", &conv_pack, nb::arg("isa"), nb::arg("weight").noconvert(), nb::arg("out_channels"),
               nb::arg("in_channels"), nb::arg("kernel_size"), nb::arg("packed").noconvert(),
               "Packs conv weights for a isa.");
    module.def("conv_peak", &conv_peak, nb::arg("isa"), nb::arg("count"),
               "Does at least count operations of a conv in registers, and returns how many.");
    nb::class_<Pool>(module, "Pool", "Threads that run programs: the caller's and threads - 1 of its own.")
        .def(nb::init<int64_t>(), nb::arg("threads"))
        .def("run", &Pool::run, nb::arg("steps").noconvert(), nb::arg("seconds").noconvert(),
             "Runs the steps, without the GIL; adds each kind's seconds.");
    module.def("plan_maps", &plan_maps, nb::arg("symbols").noconvert(), nb::arg("sizes"), nb::arg("n_symbols"),
               nb::arg("kernel_size"), nb::arg("pool").none(),
               "(patches3, patches5, index) of every level of each symbol map [N, H, W], by a pool or this thread.");
}
