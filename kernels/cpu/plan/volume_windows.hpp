// Numbers the distinct k x k x k windows of a volume, with memory of its own.
#ifndef SPADE_VOLUME_WINDOWS_HPP
#define SPADE_VOLUME_WINDOWS_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cpu/plan/distinct_windows.hpp"
#include "cpu/plan/plan_levels.hpp"

namespace spade {
namespace {

// The distinct windows [count, k*k*k] in order of first appearance, and the number of each voxel's window
// [depth * height, width].
struct VolumeWindows {
    Buffer windows, index;
};

template <int K>
VolumeWindows number_volume(const int32_t* ids, const spade_volume_shape& shape) {
    constexpr int64_t r = K / 2;
    const int64_t depth = shape.depth, height = shape.height, width = shape.width;
    const int64_t stride = width + K - 1, plane = (height + K - 1) * stride, voxels = depth * height * width;
    std::vector<int32_t> padded(static_cast<size_t>((depth + K - 1) * plane), shape.outside);
    const Volume<K, int32_t> volume{padded.data(), plane, stride, height, width};
    for (int64_t line = 0; line < depth * height; ++line)
        std::copy_n(ids + line * width, width, padded.data() + volume.line(line) + r * plane + r * stride + r);

    const auto capacity = std::bit_ceil(static_cast<uint64_t>(2 * voxels));
    std::vector<uint64_t> slots(capacity);
    std::vector<uint32_t> tags(static_cast<size_t>(voxels)), row_tags(static_cast<size_t>(width));
    std::vector<int32_t> first(static_cast<size_t>(voxels)), found(static_cast<size_t>(width));
    std::vector<uint8_t> seams(static_cast<size_t>(stride)), changed(static_cast<size_t>(stride));
    const Table table{slots.data(), tags.data(), first.data(), static_cast<int64_t>(capacity), 0, 0};
    WindowNumbers windows(volume, table, RowScratch{seams.data(), changed.data(), found.data(), row_tags.data()});
    VolumeWindows result{Buffer(0, 0), Buffer(depth * height, width)};
    for (int64_t line = 0; line < depth * height; ++line) windows.row(line, result.index.data.get() + line * width);

    result.windows = Buffer(windows.count(), K * K * K);
    int32_t* out = result.windows.data.get();
    for (int64_t number = 0; number < windows.count(); ++number)
        for (int row = 0; row < K * K; ++row)
            out = std::copy_n(padded.data() + first[static_cast<size_t>(number)] + volume.row(row), K, out);
    return result;
}

// Throws std::invalid_argument for a kernel size or a volume that cannot be numbered.
VolumeWindows volume_windows(const int32_t* ids, const spade_volume_shape& shape) {
    const double padded = static_cast<double>(shape.depth + 4) * static_cast<double>(shape.height + 4) *
                          static_cast<double>(shape.width + 4);
    if (std::min({shape.depth, shape.height, shape.width}) < 1 || padded > SPADE_PLAN_MAX_PIXELS)
        throw std::invalid_argument(spade_status_message(SPADE_ERROR_SIZE));
    if (shape.kernel_size == 1) return number_volume<1>(ids, shape);
    if (shape.kernel_size == 3) return number_volume<3>(ids, shape);
    if (shape.kernel_size == 5) return number_volume<5>(ids, shape);
    throw std::invalid_argument(spade_status_message(SPADE_ERROR_KERNEL_SIZE));
}

}  // namespace
}  // namespace spade

#endif
