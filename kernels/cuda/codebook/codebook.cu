// Entry points and launches of gather.hpp and codebook.hpp.

#include <type_traits>
#include <vector>

#include "cuda/codebook/codebook_float.hpp"
#include "cuda/codebook/codebook_mma.hpp"
#include "cuda/codebook/codebook_wgmma.hpp"
#include "cuda/codebook/gather.hpp"
#include "cuda/host/check.hpp"

#define SPADE_GATHER(name, Table, T)                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                     \
        spade_gather_##name(const __grid_constant__ spade::GroupedLaunch<spade::Gather<Table, T>> grouped) { \
        spade::gather_sum(grouped);                                                                          \
    }

SPADE_GATHER(float32, float, float)
SPADE_GATHER(float16, __half, __half)
SPADE_GATHER(bfloat16, __nv_bfloat16, __nv_bfloat16)
SPADE_GATHER(float32_float16, float, __half)
SPADE_GATHER(float32_bfloat16, float, __nv_bfloat16)
#undef SPADE_GATHER

#define SPADE_PRODUCT(name, T, Out, stages)                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                     \
        spade_product_##name(const __grid_constant__ spade::GroupedLaunch<spade::Product<T, Out>> grouped) { \
        spade::product_mma<stages>(grouped, static_cast<spade::HalfStage<T>*>(spade::dynamic_shared()));     \
    }

SPADE_PRODUCT(float16, __half, __half, spade::kMmaStages)
SPADE_PRODUCT(bfloat16, __nv_bfloat16, __nv_bfloat16, spade::kMmaStages)
SPADE_PRODUCT(float16_float32, __half, float, spade::kMmaStages)
SPADE_PRODUCT(bfloat16_float32, __nv_bfloat16, float, spade::kMmaStages)
SPADE_PRODUCT(few_float16, __half, __half, spade::kMmaFewStages)
SPADE_PRODUCT(few_bfloat16, __nv_bfloat16, __nv_bfloat16, spade::kMmaFewStages)
SPADE_PRODUCT(few_float16_float32, __half, float, spade::kMmaFewStages)
SPADE_PRODUCT(few_bfloat16_float32, __nv_bfloat16, float, spade::kMmaFewStages)
#undef SPADE_PRODUCT

// The body is empty when compiled for an architecture other than sm_90a; the host launches the kernel on sm_90a only.
#ifdef SPADE_HAS_WGMMA
#define SPADE_RUN_WGMMA(T) spade::product_wgmma(grouped, static_cast<spade::HalfStage<T>*>(spade::dynamic_shared()))
#else
#define SPADE_RUN_WGMMA(T) static_cast<void>(grouped)
#endif
#define SPADE_PRODUCT_WGMMA(name, T)                                                                             \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                         \
        spade_product_wgmma_##name(const __grid_constant__ spade::GroupedLaunch<spade::Product<T, T>> grouped) { \
        SPADE_RUN_WGMMA(T);                                                                                      \
    }

SPADE_PRODUCT_WGMMA(float16, __half)
SPADE_PRODUCT_WGMMA(bfloat16, __nv_bfloat16)
#undef SPADE_PRODUCT_WGMMA
#undef SPADE_RUN_WGMMA

extern "C" __global__ void __launch_bounds__(256, 2)
    spade_product_float32(const __grid_constant__ spade::GroupedLaunch<spade::Product<float, float>> grouped) {
    __shared__ spade::FloatShared shared;
    spade::product_float(grouped, shared);
}

namespace spade {
namespace {

RowCount row_count(int64_t rows, const int32_t* first, const int32_t* last) {
    return {static_cast<int32_t>(rows), first, last};
}

bool pair(const void* one, const void* other) { return (one == nullptr) == (other == nullptr); }

template <typename Problem>
using GroupedKernel = void (*)(GroupedLaunch<Problem>);

// Launches all problems in as few launches as possible. tiles_of(problem) is the largest number of tiles of a problem.
template <typename Problem, typename TilesOf>
int32_t run_grouped(const std::vector<Problem>& all, GroupedKernel<Problem> kernel, int64_t shared_bytes,
                    const TilesOf& tiles_of, void* stream) {
    for (size_t begin = 0; begin < all.size(); begin += kMaxProblems) {
        GroupedLaunch<Problem> grouped{};
        int64_t tiles = 0;
        for (size_t i = begin; i < all.size() && i < begin + kMaxProblems; ++i) {
            grouped.problems[grouped.count++] = all[i];
            tiles += tiles_of(all[i]);
        }
        if (tiles > kMaxPixels) return SPADE_CUDA_ERROR_SIZE;
        const auto grid_of = [&](int64_t resident) { return launch_blocks(tiles, resident, shared_bytes); };
        if (const int32_t status = launch_resident(kernel, shared_bytes, grid_of, stream, grouped);
            status != SPADE_CUDA_OK)
            return status;
    }
    return SPADE_CUDA_OK;
}

template <typename Table, typename T>
int32_t run_gathers(std::vector<Gather<Table, T>>& problems, GroupedKernel<Gather<Table, T>> kernel, void* stream) {
    for (Gather<Table, T>& of : problems)
        of.wide = of.depth % kWide<Table> == 0 && of.tap_stride % kWide<Table> == 0 &&
                  of.row_stride % kWide<Table> == 0 && aligned({of.table, of.out}, kWideBytes);
    return run_grouped(
        problems, kernel, 0, [](const auto& of) { return int64_t{gather_tiles(of.rows.most + of.zero_row)}; }, stream);
}

template <typename T, typename Out>
struct ProductKernel {
    GroupedKernel<Product<T, Out>> kernel;
    int64_t shared_bytes;
};

template <typename T, typename Out>
int32_t run_products(std::vector<Product<T, Out>>& problems, const ProductKernel<T, Out>& with, void* stream) {
    using Tile = std::conditional_t<sizeof(T) == 2, HalfTile, FloatTile>;
    for (Product<T, Out>& of : problems) of.pairs = of.columns % 2 == 0 && aligned({of.out}, 2 * sizeof(Out));
    return run_grouped(
        problems, with.kernel, with.shared_bytes,
        [](const auto& of) {
            return ceil_div(int64_t{of.rows.most} + of.extra, Tile::rows) * ceil_div(of.columns, Tile::columns);
        },
        stream);
}

// How a device multiplies float16 and bfloat16: docs/cuda.md has the table of GPUs.
enum class ProductPath { wgmma, mma, mma_few_stages };

// Finds the path of the current device: warpgroup products on Hopper, if this library was compiled with them; else
// three stages where a block may have the shared memory for them, and two where it may not.
int32_t find_path(ProductPath& path) {
    int device = 0, shared = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error != cudaSuccess) return launch_status(error);
    path = shared >= kMmaStages * static_cast<int>(sizeof(HalfStage<__half>)) ? ProductPath::mma
                                                                              : ProductPath::mma_few_stages;
#ifdef SPADE_CUDA_WGMMA
    int major = 0;
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error != cudaSuccess) return launch_status(error);
    if (major == 9) path = ProductPath::wgmma;
#endif
    return SPADE_CUDA_OK;
}

template <typename T>
int32_t embeds(const spade_gather_embed* args, int64_t count, GroupedKernel<Gather<T, T>> kernel, void* stream) {
    std::vector<Gather<T, T>> problems;
    for (int64_t i = 0; i < count; ++i) {
        const spade_gather_embed& of = args[i];
        problems.push_back({static_cast<const T*>(of.table), of.bias, of.patches, static_cast<T*>(of.out),
                            (of.symbols + 1) * of.depth, of.depth, row_count(of.rows, of.first_row, of.last_row),
                            static_cast<int32_t>(of.taps), static_cast<int32_t>(of.depth),
                            static_cast<int32_t>(of.relu), static_cast<int32_t>(of.zero_row), 0});
    }
    return run_gathers(problems, kernel, stream);
}

template <typename T>
struct Kernels {
    ProductKernel<T, T> product;
    ProductKernel<T, float> products;  // per tap; the products stay in float32
    GroupedKernel<Gather<float, T>> gather;
};

// The kernels of float16 or bfloat16 on a path.
template <typename T>
Kernels<T> half_kernels(ProductPath path, GroupedKernel<Product<T, T>> wgmma, GroupedKernel<Product<T, T>> mma,
                        GroupedKernel<Product<T, T>> few, GroupedKernel<Product<T, float>> products,
                        GroupedKernel<Product<T, float>> few_products, GroupedKernel<Gather<float, T>> gather) {
    constexpr auto kStage = static_cast<int64_t>(sizeof(HalfStage<T>));
    constexpr int64_t kMany = kMmaStages * kStage, kFew = kMmaFewStages * kStage;
    if (path == ProductPath::wgmma) return {{wgmma, kWgmmaStages * kStage}, {products, kMany}, gather};
    if (path == ProductPath::mma) return {{mma, kMany}, {products, kMany}, gather};
    return {{few, kFew}, {few_products, kFew}, gather};
}

// One launch for the codebooks that multiply gathered rows, then two launches for the codebooks per tap: the products,
// and the sums of gathered rows of the products.
template <typename T>
int32_t codebooks(const spade_gather_codebook* args, int64_t count, const Kernels<T>& kernels, void* stream) {
    std::vector<Product<T, T>> gathered;
    std::vector<Product<T, float>> per_tap;
    std::vector<Gather<float, T>> sums;
    for (int64_t i = 0; i < count; ++i) {
        const spade_gather_codebook& of = args[i];
        const auto *actv = static_cast<const T*>(of.actv), *weight = static_cast<const T*>(of.weight);
        auto* entries = static_cast<T*>(of.entries);
        const auto taps = static_cast<int32_t>(of.taps), columns = static_cast<int32_t>(2 * of.channels);
        const RowCount rows = row_count(of.rows, of.first_row, of.last_row);
        if (of.products == nullptr) {
            gathered.push_back({actv, of.patches, weight, of.bias, entries, rows, 0, taps, columns, 0});
            continue;
        }
        const RowCount actv_rows = row_count(of.actv_rows - 1, of.first_actv_row, of.last_actv_row);
        per_tap.push_back({actv, nullptr, weight, nullptr, of.products, actv_rows, 1, 1, taps * columns, 0});
        sums.push_back({of.products, of.bias, of.patches, entries, columns, static_cast<int64_t>(taps) * columns, rows,
                        taps, columns, 0, 0, 0});
    }
    int32_t status = run_products(gathered, kernels.product, stream);
    if (status == SPADE_CUDA_OK) status = run_products(per_tap, kernels.products, stream);
    if (status == SPADE_CUDA_OK) status = run_gathers(sums, kernels.gather, stream);
    return status;
}

int32_t check(const spade_gather_embed& args) {
    if (any_null({args.table, args.bias, args.patches, args.out}) || !pair(args.first_row, args.last_row))
        return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args.dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(args.rows, 1, kMaxPixels) || !within(args.taps, 1, 25) || !within(args.symbols, 1, 65535) ||
        !within(args.depth, 1, kMaxChannels) || !within(args.zero_row, 0, 1))
        return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args.table, args.out}, element_bytes(args.dtype)) || !aligned({args.bias, args.patches}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

int32_t check(const spade_gather_codebook& args) {
    if (any_null({args.actv, args.patches, args.weight, args.bias, args.entries}) ||
        !pair(args.first_row, args.last_row) || !pair(args.first_actv_row, args.last_actv_row))
        return SPADE_CUDA_ERROR_NULL;
    if (!is_dtype(args.dtype)) return SPADE_CUDA_ERROR_DTYPE;
    if (!within(args.rows, 1, kMaxPixels) || !within(args.actv_rows, 1, kMaxPixels) || !within(args.taps, 1, 25) ||
        !within(args.channels, 1, kMaxChannels / 2))
        return SPADE_CUDA_ERROR_SIZE;
    if (!aligned({args.actv, args.weight, args.products}, kWideBytes)) return SPADE_CUDA_ERROR_ALIGN;
    if (!aligned({args.entries}, element_bytes(args.dtype)) || !aligned({args.bias, args.patches}, 4))
        return SPADE_CUDA_ERROR_ALIGN;
    return SPADE_CUDA_OK;
}

// Checks every problem. All must have the dtype of the first.
template <typename Args>
int32_t check_all(const Args* args, int64_t count) {
    if (args == nullptr) return SPADE_CUDA_ERROR_NULL;
    if (!within(count, 1, kMaxPixels)) return SPADE_CUDA_ERROR_SIZE;
    for (int64_t i = 0; i < count; ++i) {
        if (const int32_t status = check(args[i]); status != SPADE_CUDA_OK) return status;
        if (args[i].dtype != args[0].dtype) return SPADE_CUDA_ERROR_DTYPE;
    }
    return SPADE_CUDA_OK;
}

}  // namespace
}  // namespace spade

int32_t spade_cuda_embed(const spade_gather_embed* args, int64_t count, void* stream) {
    using namespace spade;
    if (const int32_t status = check_all(args, count); status != SPADE_CUDA_OK) return status;
    if (args->dtype == SPADE_CUDA_FLOAT16) return embeds<__half>(args, count, spade_gather_float16, stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16) return embeds<__nv_bfloat16>(args, count, spade_gather_bfloat16, stream);
    return embeds<float>(args, count, spade_gather_float32, stream);
}

int32_t spade_cuda_codebook(const spade_gather_codebook* args, int64_t count, void* stream) {
    using namespace spade;
    if (const int32_t status = check_all(args, count); status != SPADE_CUDA_OK) return status;
    ProductPath path{};
    if (const int32_t status = find_path(path); status != SPADE_CUDA_OK) return status;
#define SPADE_KERNELS(dtype, T)                                                                          \
    half_kernels<T>(path, spade_product_wgmma_##dtype, spade_product_##dtype, spade_product_few_##dtype, \
                    spade_product_##dtype##_float32, spade_product_few_##dtype##_float32,                \
                    spade_gather_float32_##dtype)
    if (args->dtype == SPADE_CUDA_FLOAT16)
        return codebooks<__half>(args, count, SPADE_KERNELS(float16, __half), stream);
    if (args->dtype == SPADE_CUDA_BFLOAT16)
        return codebooks<__nv_bfloat16>(args, count, SPADE_KERNELS(bfloat16, __nv_bfloat16), stream);
#undef SPADE_KERNELS
    return codebooks<float>(args, count, {{spade_product_float32, 0}, {spade_product_float32, 0}, spade_gather_float32},
                            stream);
}
