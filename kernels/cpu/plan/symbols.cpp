// Symbols: one number a pixel, which holds the pixel's label and, with instances, whether it lies on an instance edge.
//
//   id        = dont_care_id if label = 255 and dont_care_id >= 0, else label
//   edge      = the instance id differs from the left, right, upper or lower neighbour's; the image border is no edge
//   symbol    = id, or 2 id + edge with instances
//
// Bytes: label (1) and instance (4) are read once, the rows above and below come from cache; symbol (2) is written
// once. Operations: about ten a pixel, vectorised.
//
// Fused: the check that every id is below classes, which saves a request one more pass.

#include <cstdint>

#include "spade_kernels.h"

namespace {

constexpr uint8_t dont_care = 255;

// Writes the ids of a row to symbols; returns whether every id is below `classes`.
bool write_ids(const uint8_t* labels, int64_t width, int32_t dont_care_id, int32_t classes, uint16_t* symbols) {
    const auto replacement = static_cast<uint8_t>(dont_care_id < 0 ? dont_care : dont_care_id);
    uint8_t largest = 0;
    for (int64_t x = 0; x < width; ++x) {
        const uint8_t id = labels[x] == dont_care ? replacement : labels[x];
        largest = id > largest ? id : largest;
        symbols[x] = id;
    }
    return largest < classes;
}

// symbols[x] = 2 * symbols[x] + edge. In the first and last row of a map, `above` and `below` are the row itself.
void add_edges(const int32_t* above, const int32_t* row, const int32_t* below, int64_t width, uint16_t* symbols) {
    const auto add = [&](int64_t x, int64_t left, int64_t right) {
        const int32_t differs =
            (row[x] ^ above[x]) | (row[x] ^ below[x]) | (row[x] ^ row[left]) | (row[x] ^ row[right]);
        symbols[x] = static_cast<uint16_t>(2 * symbols[x] + (differs != 0 ? 1 : 0));
    };
    add(0, 0, width > 1 ? 1 : 0);
    for (int64_t x = 1; x < width - 1; ++x) add(x, x - 1, x + 1);
    if (width > 1) add(width - 1, width - 2, width - 1);
}

}  // namespace

spade_status spade_symbols(const spade_symbols_shape* shape, const uint8_t* labels, const int32_t* instances,
                           uint16_t* symbols, int32_t* all_known) {
    if (shape == nullptr || labels == nullptr || symbols == nullptr || all_known == nullptr) return SPADE_ERROR_NULL;
    const int64_t height = shape->height, width = shape->width;
    if (shape->n < 1 || height < 1 || width < 1) return SPADE_ERROR_SIZE;
    bool known = true;
    for (int64_t line = 0; line < shape->n * height; ++line) {
        uint16_t* const to = symbols + line * width;
        known = write_ids(labels + line * width, width, shape->dont_care_id, shape->classes, to) && known;
        if (instances == nullptr) continue;
        const int32_t* const row = instances + line * width;
        const int64_t y = line % height;
        add_edges(y == 0 ? row : row - width, row, y + 1 == height ? row : row + width, width, to);
    }
    *all_known = known ? 1 : 0;
    return SPADE_OK;
}
