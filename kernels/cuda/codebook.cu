// Entry points and launches of codebook.hpp.

#include <type_traits>

#include "check.hpp"
#include "codebook.hpp"

#define SPADE_GATHER(name, Table, T)                                         \
    extern "C" __global__ void __launch_bounds__(256, 4)                     \
        spade_gather_##name(spade::Gather<Table, T> of, int32_t wide) {      \
        if (wide != 0) spade::gather_sum<Table, T, spade::kWide<Table>>(of); \
        if (wide == 0) spade::gather_sum<Table, T, 1>(of);                   \
    }

SPADE_GATHER(float32, float, float)
SPADE_GATHER(float16, __half, __half)
SPADE_GATHER(bfloat16, __nv_bfloat16, __nv_bfloat16)
SPADE_GATHER(float32_float16, float, __half)
SPADE_GATHER(float32_bfloat16, float, __nv_bfloat16)
#undef SPADE_GATHER

#define SPADE_PRODUCT(name, T, Out)                                        \
    extern "C" __global__ void __launch_bounds__(256, 2)                   \
        spade_product_##name(spade::Product<T, Out> of, int32_t aligned) { \
        __shared__ spade::HalfShared<T> shared;                            \
        spade::product_half(of, shared, aligned != 0);                     \
    }

SPADE_PRODUCT(float16, __half, __half)
SPADE_PRODUCT(bfloat16, __nv_bfloat16, __nv_bfloat16)
SPADE_PRODUCT(float16_float32, __half, float)
SPADE_PRODUCT(bfloat16_float32, __nv_bfloat16, float)
#undef SPADE_PRODUCT

extern "C" __global__ void __launch_bounds__(256, 2) spade_product_float32(spade::Product<float, float> of, int32_t) {
    __shared__ spade::FloatShared shared;
    spade::product_float(of, shared);
}

namespace spade {
namespace {

RowCount row_count(int64_t rows, const int32_t* first, const int32_t* last) {
    return {static_cast<int32_t>(rows), first, last};
}

bool pair(const void* one, const void* other) { return (one == nullptr) == (other == nullptr); }

// out = act(bias + sum of gathered rows), from a table of Table with its strides.
template <typename Table, typename T>
int32_t run_gather(const Gather<Table, T>& of, void (*kernel)(Gather<Table, T>, int32_t), void* stream) {
    const bool wide = of.depth % kWide<Table> == 0 && of.tap_stride % kWide<Table> == 0 &&
                      of.row_stride % kWide<Table> == 0 && aligned({of.table, of.out}, kWideBytes);
    const Launch grid = launch_rows(of.rows.most + of.zero_row, of.depth / (wide ? kWide<Table> : 1),
                                    resident_blocks(kernel, kThreads));
    return launch(kernel, grid, stream, of, static_cast<int32_t>(wide));
}

template <typename T>
int32_t embed(const spade_gather_embed& args, void (*kernel)(Gather<T, T>, int32_t), void* stream) {
    const int64_t rows = args.symbols + 1;
    return run_gather(
        Gather<T, T>{static_cast<const T*>(args.table), args.bias, args.patches, static_cast<T*>(args.out),
                     rows * args.depth, args.depth, static_cast<int32_t>(args.taps), static_cast<int32_t>(args.depth),
                     static_cast<int32_t>(args.relu), static_cast<int32_t>(args.zero_row),
                     row_count(args.rows, args.first_row, args.last_row)},
        kernel, stream);
}

template <typename T, typename Out>
int32_t run_product(const Product<T, Out>& of, int64_t rows, void (*kernel)(Product<T, Out>, int32_t), void* stream) {
    using Tile = std::conditional_t<sizeof(T) == 2, HalfTile, Tile2<FloatTile::rows, FloatTile::columns, 1>>;
    const bool wide = of.columns % 8 == 0 && aligned({of.weight, of.out}, kWideBytes);
    const Launch grid = launch_tiles(rows, of.columns, Tile::rows, Tile::columns);
    return launch(kernel, grid, stream, of, static_cast<int32_t>(wide));
}

template <typename T>
struct Kernels {
    void (*product)(Product<T, T>, int32_t);
    void (*products)(Product<T, float>, int32_t);  // per tap: kept in float32
    void (*gather)(Gather<float, T>, int32_t);
};

template <typename T>
int32_t codebook(const spade_gather_codebook& args, const Kernels<T>& kernels, void* stream) {
    const auto *actv = static_cast<const T*>(args.actv), *weight = static_cast<const T*>(args.weight);
    auto* entries = static_cast<T*>(args.entries);
    const auto taps = static_cast<int32_t>(args.taps), columns = static_cast<int32_t>(2 * args.channels);
    const RowCount rows = row_count(args.rows, args.first_row, args.last_row);
    if (args.products == nullptr)
        return run_product(Product<T, T>{actv, args.patches, weight, args.bias, entries, taps, columns, rows, 0},
                           args.rows, kernels.product, stream);
    const RowCount actv_rows = row_count(args.actv_rows - 1, args.first_actv_row, args.last_actv_row);
    const int32_t status =
        run_product(Product<T, float>{actv, nullptr, weight, nullptr, args.products, 1, taps * columns, actv_rows, 1},
                    args.actv_rows, kernels.products, stream);
    if (status != SPADE_CUDA_OK) return status;
    return run_gather(Gather<float, T>{args.products, args.bias, args.patches, entries, columns,
                                       static_cast<int64_t>(taps) * columns, taps, columns, 0, 0, rows},
                      kernels.gather, stream);
}

int32_t check(const spade_gather_embed* args) {
    if (args == nullptr || any_null({args->table, args->bias, args->patches, args->out}) ||
        !pair(args->first_row, args->last_row))
        return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args->dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(args->rows, 1, kMaxPixels) || !within(args->taps, 1, 25) || !within(args->symbols, 1, 65535) ||
        !within(args->depth, 1, kMaxChannels) || !within(args->zero_row, 0, 1))
        return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args->table, args->out}, element_bytes(args->dtype)) || !aligned({args->bias, args->patches}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

int32_t check(const spade_gather_codebook* args) {
    if (args == nullptr || any_null({args->actv, args->patches, args->weight, args->bias, args->entries}) ||
        !pair(args->first_row, args->last_row) || !pair(args->first_actv_row, args->last_actv_row))
        return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args->dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(args->rows, 1, kMaxPixels) || !within(args->actv_rows, 1, kMaxPixels) || !within(args->taps, 1, 25) ||
        !within(args->channels, 1, kMaxChannels / 2))
        return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args->actv, args->products}, kWideBytes)) return SPADE_CUDA_ERROR_ALIGN;
    if (!aligned({args->weight, args->entries}, element_bytes(args->dtype)) || !aligned({args->bias, args->patches}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

}  // namespace
}  // namespace spade

int32_t spade_cuda_embed(const spade_gather_embed* args, void* stream) {
    using namespace spade;
    if (const int32_t status = check(args); status != SPADE_CUDA_OK) return status;
    if (args->dtype == SPADE_CUDA_FLOAT16) return embed<__half>(*args, spade_gather_float16, stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16) return embed<__nv_bfloat16>(*args, spade_gather_bfloat16, stream);
    return embed<float>(*args, spade_gather_float32, stream);
}

int32_t spade_cuda_codebook(const spade_gather_codebook* args, void* stream) {
    using namespace spade;
    if (const int32_t status = check(args); status != SPADE_CUDA_OK) return status;
    if (args->dtype == SPADE_CUDA_FLOAT16)
        return codebook(
            *args, Kernels<__half>{spade_product_float16, spade_product_float16_float32, spade_gather_float32_float16},
            stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16)
        return codebook(*args,
                        Kernels<__nv_bfloat16>{spade_product_bfloat16, spade_product_bfloat16_float32,
                                               spade_gather_float32_bfloat16},
                        stream);
    return codebook(*args, Kernels<float>{spade_product_float32, spade_product_float32, spade_gather_float32}, stream);
}
