// Numbers the distinct k x k windows of a padded map in order of first appearance, row by row.
//
// The result is exact although windows are hashed: the table holds the position where each window appeared first, and
// two windows get one number only if all their taps are equal. The hash only decides where to look.

#ifndef SPADE_DISTINCT_WINDOWS_HPP
#define SPADE_DISTINCT_WINDOWS_HPP

#include <cstdint>
#include <cstring>

// A test sets fewer bits, so that distinct windows collide; the result must stay the same.
#ifndef SPADE_PLAN_TAG_MASK
#define SPADE_PLAN_TAG_MASK 0xFFFFFFFFu
#endif

namespace spade {

constexpr int64_t kFirstCapacity = 4096;  // 32 KB of slots: the size of a first-level cache

// ---- A padded map or volume and its windows ----

// `Map` and `Volume` give WindowNumbers what it reads: a window has kRows rows of K neighbours, and row(i) is the
// distance in elements from the first row of a window to its row i; line(y) is the position where line y of windows
// begins.

template <int K_, typename T>
struct Map {
    static constexpr int K = K_, kRows = K;
    using Tap = T;
    T* data;         // [height + K - 1, stride]
    int64_t stride;  // width + K - 1
    int64_t height, width;

    int64_t row(int i) const { return i * stride; }
    int64_t line(int64_t y) const { return y * stride; }

    void fill_border(T outside) {
        constexpr int r = K / 2;
        for (int64_t y = 0; y < height + 2 * r; ++y) {
            T* row = data + y * stride;
            const bool inside = y >= r && y < height + r;
            for (int64_t x = 0; x < (inside ? r : stride); ++x) row[x] = outside;
            for (int64_t x = stride - r; x < stride; ++x) row[x] = outside;
        }
    }
};

// A padded volume. Its lines are the rows of all slices, one slice after the other.
template <int K_, typename T>
struct Volume {
    static constexpr int K = K_, kRows = K * K;
    using Tap = T;
    T* data;                // [depth + K - 1, height + K - 1, stride]
    int64_t plane, stride;  // (height + K - 1) * stride, width + K - 1
    int64_t height, width;

    int64_t row(int i) const { return i / K * plane + i % K * stride; }
    int64_t line(int64_t y) const { return y / height * plane + y % height * stride; }
};

// Whether the windows at two positions have equal taps.
template <typename M>
bool equal_windows(const M& map, int64_t a, int64_t b) {
    constexpr size_t bytes = M::K * sizeof(typename M::Tap);
    for (int i = 0; i < M::kRows; ++i)
        if (std::memcmp(map.data + a + map.row(i), map.data + b + map.row(i), bytes) != 0) return false;
    return true;
}

// The hash of the window at a position.
template <typename M>
uint32_t window_tag(const M& map, int64_t position) {
    uint64_t hash = 0;
    for (int i = 0; i < M::kRows; ++i) {
        const auto* taps = map.data + position + map.row(i);
        for (int tap = 0; tap < M::K; ++tap) hash ^= static_cast<uint64_t>(taps[tap]) << (tap * (64 / M::K) % 64);
        hash *= 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return static_cast<uint32_t>(hash) & SPADE_PLAN_TAG_MASK;
}

// ---- The windows numbered so far ----

// A hash table with linear probing, at most half full. A slot is tag << 32 | number + 1; zero is empty.
struct Table {
    uint64_t* slots;   // room for the largest capacity
    uint32_t* tags;    // [number]: hash, to refill the slots when the table grows
    int32_t* first;    // [number]: position of the first appearance
    int64_t largest;   // largest capacity: a power of two, at least twice the windows of the map
    int64_t capacity;  // slots in use: a power of two
    int64_t count;     // windows numbered so far

    void clear(int64_t slot_count) {
        capacity = slot_count;
        std::memset(slots, 0, static_cast<size_t>(capacity) * sizeof(uint64_t));
    }

    // The slot where the search for a hash starts.
    int64_t home(uint32_t tag) const {
        return static_cast<int64_t>((static_cast<uint64_t>(tag) * static_cast<uint64_t>(capacity)) >> 32);
    }

    void grow() {
        clear(capacity * 4 < largest ? capacity * 4 : largest);
        for (int64_t number = 0; number < count; ++number) {
            int64_t slot = home(tags[number]);
            while (slots[slot] != 0) slot = (slot + 1) & (capacity - 1);
            slots[slot] = entry(tags[number], number);
        }
    }

    static uint64_t entry(uint32_t tag, int64_t number) {
        return static_cast<uint64_t>(tag) << 32 | static_cast<uint64_t>(number + 1);
    }

    // Returns the number of the window at a position; `tag` is its hash. A new window gets the next number.
    template <typename M>
    int32_t number(const M& map, int64_t position, uint32_t tag) {
        int64_t slot = home(tag);
        for (; slots[slot] != 0; slot = (slot + 1) & (capacity - 1)) {
            const auto number = static_cast<int32_t>(static_cast<uint32_t>(slots[slot]) - 1);
            if (slots[slot] >> 32 == tag && equal_windows(map, first[number], position)) return number;
        }
        slots[slot] = entry(tag, count);
        tags[count] = tag;
        first[count] = static_cast<int32_t>(position);
        const auto number = static_cast<int32_t>(count++);
        if (capacity < largest && 2 * count > capacity) grow();
        return number;
    }
};

// ---- One row: windows -> numbers ----

// Buffers for one row.
struct RowScratch {
    uint8_t *seams, *changed;  // [width + K - 1], see mark_changes
    int32_t* found;            // [width]: positions of the changed windows, then their numbers
    uint32_t* tags;            // [width]: hashes of the changed windows
};

// Numbers the windows of a map or volume, line by line in order. The changed windows of a row are collected before they
// are looked up, so that the processor runs several lookups at once and predicts no branch per pixel.
template <typename M>
class WindowNumbers {
 public:
    WindowNumbers(const M& map, const Table& table, const RowScratch& row) : map_(map), table_(table), row_(row) {
        table_.count = 0;
        table_.clear(table_.largest < kFirstCapacity ? table_.largest : kFirstCapacity);
    }

    int64_t count() const { return table_.count; }

    // Writes the numbers of the windows of row y to out [width].
    void row(int64_t y, int32_t* out) {
        mark_changes(y);
        const int64_t changes = collect(y);
        for (int64_t i = 0; i < changes; ++i) {
            row_.tags[i] = window_tag(map_, row_.found[i]);
            __builtin_prefetch(table_.slots + table_.home(row_.tags[i]));
        }
        for (int64_t i = 0; i < changes; ++i) row_.found[i] = table_.number(map_, row_.found[i], row_.tags[i]);
        spread(out);
    }

 private:
    // seams[j] = 1 if padded column j differs from column j - 1 within the window's rows.
    // changed[x] = 1 if the window at x differs from the window at x - 1; changed[0] is always 1.
    void mark_changes(int64_t y) {
        const auto* __restrict top = map_.data + map_.line(y);
        uint8_t* __restrict seams = row_.seams, * __restrict changed = row_.changed;
        const int64_t stride = map_.stride;
        seams[0] = 0;
        for (int64_t j = 1; j < stride; ++j) {
            uint8_t seam = 0;
            for (int i = 0; i < M::kRows; ++i)
                seam |= static_cast<uint8_t>(top[map_.row(i) + j] != top[map_.row(i) + j - 1]);
            seams[j] = seam;
        }
        for (int64_t x = 0; x < map_.width; ++x) {
            uint8_t change = 0;
            for (int tap = 0; tap < M::K; ++tap) change |= seams[x + tap];
            changed[x] = change;
        }
        changed[0] = 1;
    }

    // Walks the row eight pixels at a time. Calls none(x) for eight pixels from x on without a change, and some(x) for
    // each pixel of any other group.
    template <typename None, typename Some>
    void walk(None none, Some some) const {
        for (int64_t x = 0; x < map_.width;) {
            uint64_t eight = 1;
            const int64_t end = x + 8 < map_.width ? x + 8 : map_.width;
            if (end == x + 8) std::memcpy(&eight, row_.changed + x, 8);
            if (eight == 0)
                none(x);
            else
                for (int64_t i = x; i < end; ++i) some(i);
            x = end;
        }
    }

    // Writes the positions of the changed windows to row_.found; returns their count.
    int64_t collect(int64_t y) {
        const auto line = static_cast<int32_t>(map_.line(y));
        int64_t changes = 0;
        walk([](int64_t) {},
             [&](int64_t x) {
                 row_.found[changes] = line + static_cast<int32_t>(x);
                 changes += row_.changed[x];
             });
        return changes;
    }

    // Gives every pixel the number of the last changed window.
    void spread(int32_t* out) const {
        const int32_t* number = row_.found - 1;
        walk(
            [&](int64_t x) {
                for (int i = 0; i < 8; ++i) out[x + i] = *number;
            },
            [&](int64_t x) {
                number += row_.changed[x];
                out[x] = *number;
            });
    }

    const M map_;
    Table table_;
    const RowScratch row_;
};

}  // namespace spade

#endif
