// A libFuzzer target of the symbols of label and instance maps: any shape, any labels, beside the formula written
// plainly. scripts/fuzz_native builds and runs this program.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "spade_kernels.h"

namespace {

void require(bool holds) {
    if (!holds) std::abort();
}

struct Maps {
    spade_symbols_shape shape;
    const std::vector<uint8_t>& labels;
    const std::vector<int32_t>& instances;
};

// 1 where a neighbour inside the map is another instance.
int edge(const Maps& maps, int64_t image, int64_t y, int64_t x) {
    const spade_symbols_shape& s = maps.shape;
    const auto at = [&](int64_t row, int64_t column) {
        return maps.instances[static_cast<size_t>((image * s.height + row) * s.width + column)];
    };
    const int32_t here = at(y, x);
    return (x > 0 && at(y, x - 1) != here) || (x + 1 < s.width && at(y, x + 1) != here) ||
           (y > 0 && at(y - 1, x) != here) || (y + 1 < s.height && at(y + 1, x) != here);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    uint8_t given[6] = {};
    std::memcpy(given, data, std::min(size, sizeof given));
    const spade_symbols_shape shape{1 + given[0] % 3, 1 + given[1] % 70, 1 + given[2] % 70, 1 + given[3],
                                    given[4] % 2 ? -1 : given[4]};
    const auto pixels = static_cast<size_t>(shape.n * shape.height * shape.width);
    std::vector<uint8_t> labels(pixels);
    std::vector<int32_t> instances(pixels);
    for (size_t i = 0; i < pixels && size > sizeof given; ++i) {
        labels[i] = data[sizeof given + i % (size - sizeof given)];
        instances[i] = data[sizeof given + (i * 7 + 3) % (size - sizeof given)] / 64 * 1000003;
    }
    const bool with_instances = given[5] % 2;
    std::vector<uint16_t> symbols(pixels);
    int32_t all_known = -1;
    if (spade_symbols(&shape, labels.data(), with_instances ? instances.data() : nullptr, symbols.data(), &all_known) !=
        SPADE_OK)
        return 0;
    bool known = true;
    const Maps maps{shape, labels, instances};
    for (int64_t image = 0; image < shape.n; ++image)
        for (int64_t y = 0; y < shape.height; ++y)
            for (int64_t x = 0; x < shape.width; ++x) {
                const auto i = static_cast<size_t>((image * shape.height + y) * shape.width + x);
                const int id = labels[i] == 255 && shape.dont_care_id >= 0 ? shape.dont_care_id : labels[i];
                known = known && id < shape.classes;
                require(symbols[i] == (with_instances ? 2 * id + edge(maps, image, y, x) : id));
            }
    require(all_known == (known ? 1 : 0));
    return 0;
}
