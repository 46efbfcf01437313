// Tests the index and launch arithmetic of the CUDA kernels at sizes that no emulated kernel can run: up to 64 images
// of 4096 x 4096. Each formula is written again here, in 64 bits.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cuda/codebook/codebook_float.hpp"
#include "cuda/codebook/codebook_mma.hpp"
#include "cuda/codebook/codebook_wgmma.hpp"
#include "cuda/codebook/gather.hpp"
#include "cuda/modulate/modulate_codebook.hpp"
#include "cuda/modulate/modulate_dense.hpp"
#include "cuda/norm/norm_run.hpp"
#include "cuda/plan/plan.hpp"

using namespace spade;

namespace {

#define CHECK(condition)                                                 \
    do {                                                                 \
        if (!(condition)) {                                              \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            std::abort();                                                \
        }                                                                \
    } while (false)

constexpr int64_t kInt = INT32_MAX;
std::mt19937_64 randomness(0);

struct Size {
    int64_t n, height, width;
};

std::vector<Size> sizes() {
    std::vector<Size> all;
    for (int64_t n : {1, 3, 8, 64})
        for (auto [h, w] : {std::pair<int64_t, int64_t>{1, 1}, {2, 2}, {6, 10}, {255, 257}, {256, 512}, {4096, 4096}})
            all.push_back({n, h, w});
    return all;
}

// The first number below `count`, the last, and 50 random ones.
std::vector<int64_t> samples(int64_t count) {
    std::vector<int64_t> some{0, count - 1};
    for (int i = 0; i < 50; ++i) some.push_back(static_cast<int64_t>(randomness() % static_cast<uint64_t>(count)));
    return some;
}

void check_launch(const Launch& launch, int64_t rows, int64_t threads) {
    CHECK(launch.blocks >= 1 && launch.blocks <= kMaxBlocks);
    CHECK(launch.blocks_y >= 1 && launch.blocks_y <= kMaxBlocksY);
    CHECK(launch.threads_x >= 1 && launch.threads_y >= 1 && launch.threads_x * launch.threads_y <= threads);
    CHECK(rows + launch.blocks * launch.threads_y <= kInt);  // a stride past the end still fits 32 bits
}

template <bool Up>
void groups(const Size& size) {
    constexpr int32_t shift = Up ? 1 : 0;
    if (shift != 0 && (size.height % 2 != 0 || size.width % 2 != 0)) return;
    const ModulateShape shape{static_cast<int32_t>(size.n),
                              static_cast<int32_t>(size.height),
                              static_cast<int32_t>(size.width),
                              64,
                              shift,
                              1,
                              0};
    const int64_t pixels = size.n * size.height * size.width;
    CHECK(pixels <= kMaxPixels);
    for (int64_t group : samples(group_count<Up>(shape))) {
        const Group at = group_at<Up>(shape, static_cast<int32_t>(group));
        CHECK(at.count >= 1 && at.count <= 4);
        for (int64_t i = 0; i < 4; ++i) {
            const int64_t pixel = at.pixels[i];
            CHECK(pixel >= 0 && pixel < pixels);
            if (i >= at.count) continue;
            if (shift == 0) CHECK(pixel == 4 * group + i);
            if (shift == 0) continue;
            const int64_t n = pixel / (size.height * size.width), y = pixel / size.width % size.height;
            const int64_t x = pixel % size.width, source = (n * (size.height / 2) + y / 2) * (size.width / 2) + x / 2;
            CHECK(source == at.source);
            CHECK(y % 2 == i / 2 && x % 2 == i % 2);
            CHECK(source_pixel(shape, static_cast<int32_t>(pixel)) == source);
        }
    }
    if (pixels <= 4096) {  // every pixel once
        std::vector<int> seen(static_cast<size_t>(pixels));
        for (int32_t group = 0; group < group_count<Up>(shape); ++group) {
            const Group at = group_at<Up>(shape, group);
            for (int i = 0; i < at.count; ++i) ++seen[static_cast<size_t>(at.pixels[i])];
        }
        for (int count : seen) CHECK(count == 1);
    }
    const int64_t tiles = tile_count(shape);
    for (int64_t tile : samples(tiles)) {
        const Tile at = tile_at(shape, tile);
        CHECK(at.image < size.n && at.pixel < size.height * size.width && at.channel < 64);
        const int64_t along = ceil_div(size.height * size.width, kTile);
        CHECK(tile == (at.image * along + at.pixel / kTile) * 2 + at.channel / kTile);
    }
}

void launches(const Size& size, int64_t channels) {
    const int64_t pixels = size.n * size.height * size.width;
    for (int64_t resident : {1, 132, 1056, 4224})
        for (int64_t vector : {1, 4, 8}) {
            check_launch(launch_rows(pixels, ceil_div(channels, vector), resident), pixels, 256);
            const int64_t planes = size.n * channels, length = ceil_div(size.height * size.width, vector);
            if (planes <= kMaxPixels) {
                const Launch split = launch_split_rows(planes, length, resident);
                check_launch(split, planes, 256);
                CHECK(length + split.blocks_y * split.threads_x <= kInt);
            }
        }
    check_launch(launch_items(pixels), 0, 256);
}

// A multiplication in place of a division: every divisor that a kernel may meet, at the values around its multiples.
void divisions() {
    for (int64_t by : {1, 2, 3, 5, 7, 9, 64, 255, 1000, 65535, 65536, 65537, 46341, 1 << 24, (1 << 30) - 1, 1 << 30}) {
        const Divisor divisor = divisor_of(by);
        for (int64_t multiple : samples(kInt / by + 1))
            for (int64_t value : {multiple * by - 1, multiple * by, multiple * by + by - 1})
                if (value >= 0 && value <= kInt) CHECK(divide(static_cast<int32_t>(value), divisor) == value / by);
        CHECK(divide(INT32_MAX, divisor) == kInt / by);
    }
}

// Every element of a group is reduced once, within the scratch that the host sets aside.
void reductions(const Size& size, int64_t channels, int64_t norm, bool nhwc) {
    const NormShape of{size.n, size.height * size.width, channels,
                       norm,   SPADE_CUDA_FLOAT16,       nhwc ? SPADE_CUDA_NHWC : SPADE_CUDA_NCHW};
    if (size.n > kMaxPixels / channels) return;
    const auto wide = static_cast<int32_t>(access_width(of, {}, {}));
    ReduceShape shape{static_cast<int32_t>(of.groups()),
                      static_cast<int32_t>(of.n / of.groups()),
                      static_cast<int32_t>(channels),
                      static_cast<int32_t>(of.pixels),
                      1,
                      nhwc,
                      divisor_of(nhwc ? 1 : of.pixels / wide)};
    const int threads_x = nhwc ? static_cast<int>(std::min<int64_t>(channels / wide, 32)) : 1;
    const int64_t units = static_cast<int64_t>(shape.groups) * units_across(shape, threads_x, wide);
    const int64_t items = group_items(shape, wide);
    for (int64_t resident : {1, 132, 1056, 4224}) {
        const ReduceLaunch reduce = launch_reduce(units, threads_x, items, resident);
        shape.splits = reduce.splits;
        check_launch(reduce.launch, 0, 256);
        CHECK(reduce.launch.blocks == units * reduce.splits);
        const NormScratch scratch = norm_scratch(of, nullptr);
        if (reduce.splits > 1) {
            CHECK(units * 4 <= scratch.counter_bytes);
            CHECK(of.groups() * channels * reduce.splits * 12 <= scratch.bytes - scratch.counter_bytes);
        }
        const int64_t each = ceil_div(items, reduce.splits);
        CHECK(each * reduce.splits >= items && each * reduce.splits + kThreads <= kInt);
        for (int64_t block : samples(reduce.launch.blocks)) {
            const Unit unit = unit_at(shape, threads_x, wide, static_cast<int32_t>(block));
            CHECK(unit.group < shape.groups && unit.channel < channels && unit.split < reduce.splits);
        }
    }
    for (int64_t item : samples(items)) {
        const auto group = static_cast<int32_t>(shape.groups - 1);
        const int64_t channel = nhwc ? channels - wide : channels - 1;
        const int64_t offset =
            item_offset(shape, wide, group, static_cast<int32_t>(channel), static_cast<int32_t>(item));
        const int64_t element = nhwc ? item : item * wide, image = group * (of.n / of.groups()) + element / of.pixels;
        const int64_t pixel = element % of.pixels;
        CHECK(offset == (nhwc ? (image * of.pixels + pixel) * channels + channel
                              : (image * channels + channel) * of.pixels + pixel));
        CHECK(offset + wide <= of.n * of.pixels * channels);
    }
}

void rows(const Size& size, int64_t channels, bool nhwc) {
    if (size.n > kMaxPixels / channels) return;
    const int64_t pixels = size.height * size.width, stride = nhwc ? 2 * channels : 2 * channels * pixels;
    const ElementwiseShape shape{static_cast<int32_t>(size.n),
                                 static_cast<int32_t>(pixels),
                                 static_cast<int32_t>(channels),
                                 stride,
                                 channels,
                                 nhwc,
                                 divisor_of(nhwc ? pixels : channels)};
    for (int64_t row : samples(row_count(shape)))
        for (int64_t element : samples(row_length(shape))) {
            const ElementPlace at = place_at(shape, static_cast<int32_t>(row), static_cast<int32_t>(element));
            const int64_t n = nhwc ? row / pixels : row / channels, pixel = nhwc ? row % pixels : element;
            const int64_t channel = nhwc ? element : row % channels;
            CHECK(at.map ==
                  (nhwc ? (n * pixels + pixel) * channels + channel : (n * channels + channel) * pixels + pixel));
            CHECK(at.modulation ==
                  (nhwc ? (n * pixels + pixel) * stride + channel : n * stride + channel * pixels + pixel));
            CHECK(at.statistics == n * channels + channel);
        }
    for (int64_t block : samples(shape.n * static_cast<int64_t>(planes_across(shape, 16)))) {
        const Plane plane = plane_at(shape, 16, static_cast<int32_t>(block));
        CHECK(plane.image < size.n && plane.channel < channels);
    }
}

void plans(const Size& size) {
    PlanLevels levels{};
    levels.n = static_cast<int32_t>(size.n);
    levels.map_height = static_cast<int32_t>(size.height);
    levels.map_width = static_cast<int32_t>(size.width);
    int64_t positions = 0;
    for (int64_t h = size.height, w = size.width; h >= 1 && w >= 1 && levels.count < kMaxLevels; h /= 2, w /= 2) {
        levels.height[levels.count] = static_cast<int32_t>(h);
        levels.width[levels.count] = static_cast<int32_t>(w);
        positions += size.n * h * w;
        CHECK(positions <= kMaxPlanPositions);
        levels.start[++levels.count] = static_cast<int32_t>(positions);
    }
    const int64_t slots = plan_slots(positions);
    CHECK((slots & (slots - 1)) == 0 && slots - 1 <= kInt && 3 * slots >= 4 * positions);
    check_launch(launch_items(positions), 0, 256);
    CHECK(launch_items(positions).blocks * 256 <= kInt);
    for (int64_t position : samples(positions)) {
        const Position at = position_at(levels, static_cast<int32_t>(position));
        const int64_t h = levels.height[at.level], w = levels.width[at.level];
        CHECK(at.image < size.n && at.row < h && at.column < w);
        CHECK(position == levels.start[at.level] + (at.image * h + at.row) * w + at.column);
        const int64_t row = at.row * size.height / h, column = at.column * size.width / w;
        CHECK(source_at(levels, at, size.width) == (at.image * size.height + row) * size.width + column);
    }
}

// The tiles of a product: their number, and the first row and column of each.
template <typename Tile>
void products() {
    for (int32_t rows : {1, 64, 129, 4096, 1 << 20})
        for (int32_t columns : {2, 250, 256, 2048, 18 * 1024}) {
            const int64_t down = ceil_div(rows, Tile::rows), tiles = down * ceil_div(columns, Tile::columns);
            CHECK(product_tiles<Tile>(rows, columns) == tiles);
            for (int64_t tile : samples(tiles)) {
                const ProductPlace at = product_place<Tile>(static_cast<int32_t>(tile), rows);
                CHECK(at.row == tile % down * Tile::rows && at.column == tile / down * Tile::columns);
                CHECK(at.row < rows && at.column < columns);
            }
        }
}

// Every chunk of a stage has a place of its own, and eight consecutive rows use different banks.
template <typename Place>
void swizzle(int rows, int chunks, const Place& place) {
    std::vector<int> seen(static_cast<size_t>(rows * chunks));
    for (int row = 0; row < rows; ++row)
        for (int chunk = 0; chunk < chunks; ++chunk) {
            CHECK(place(row, chunk) % kChunk == 0);
            ++seen[static_cast<size_t>(place(row, chunk) / kChunk)];
        }
    for (int count : seen) CHECK(count == 1);
    for (int first = 0; first < rows; first += 8)
        for (int chunk = 0; chunk < chunks; ++chunk) {
            unsigned banks = 0;
            for (int row = first; row < first + 8; ++row) banks |= 1u << place(row, chunk) / kChunk % 8;
            CHECK(banks == 0xFF);
        }
}

}  // namespace

int main() {
    divisions();
    products<HalfTile>();
    products<FloatTile>();
    swizzle(HalfTile::rows, kRowChunks, stage_place);
    swizzle(HalfTile::columns, kRowChunks, stage_place);
    CHECK(kMmaStages * sizeof(HalfStage<__half>) <= (163 << 10));    // the most shared memory of a block on sm_80
    CHECK(kMmaFewStages * sizeof(HalfStage<__half>) <= (99 << 10));  // on sm_86, sm_89 and sm_120
    CHECK(kWgmmaStages * sizeof(HalfStage<__half>) <= (227 << 10));  // and on sm_90
    CHECK(sizeof(GroupedLaunch<Product<__half, float>>) <= 4096 &&
          sizeof(GroupedLaunch<Gather<float, __half>>) <= 4096);
    for (const Size& size : sizes()) {
        groups<false>(size);
        groups<true>(size);
        plans(size);
        for (int64_t channels : {1, 3, 8, 64, 1024})
            for (bool nhwc : {false, true}) {
                launches(size, channels);
                rows(size, channels, nhwc);
                for (int64_t norm : {SPADE_CUDA_NORM_INSTANCE, SPADE_CUDA_NORM_BATCH})
                    reductions(size, channels, norm, nhwc);
            }
    }
    std::printf("cuda_index_test: all equal\n");
    return 0;
}
