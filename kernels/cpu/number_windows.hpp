// Numbers the distinct k x k windows of a padded map in order of first appearance.
//
// Hashed, yet exact: the table holds where a window appeared first, and two windows are the same only when all their
// taps are. So the hash decides where to look and nothing else, and ids need no packing into a key of 64 bits.

#ifndef SPADE_NUMBER_WINDOWS_HPP
#define SPADE_NUMBER_WINDOWS_HPP

#include <cstdint>
#include <cstring>

// Fewer bits make distinct windows collide. A test sets this: the result must not change.
#ifndef SPADE_PLAN_TAG_MASK
#define SPADE_PLAN_TAG_MASK 0xFFFFFFFFu
#endif

namespace spade {

constexpr int64_t kFirstCapacity = 4096;  // 32 KB of slots: as much as a first-level cache

// ---- A padded map and its windows ----

template <int K, typename T>
struct Map {
    T* data;         // [height + K - 1, stride]
    int64_t stride;  // width + K - 1
    int64_t height, width;

    bool equal(int64_t a, int64_t b) const {
        for (int row = 0; row < K; ++row)
            if (std::memcmp(data + a + row * stride, data + b + row * stride, K * sizeof(T)) != 0) return false;
        return true;
    }

    uint32_t tag(int64_t position) const {
        uint64_t hash = 0;
        for (int row = 0; row < K; ++row) {
            const T* taps = data + position + row * stride;
            for (int tap = 0; tap < K; ++tap) hash ^= static_cast<uint64_t>(taps[tap]) << (tap * (64 / K) % 64);
            hash *= 0x9E3779B97F4A7C15u;
            hash ^= hash >> 32;
        }
        return static_cast<uint32_t>(hash) & SPADE_PLAN_TAG_MASK;
    }

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

// ---- The numbers given so far ----

// Open addressing with linear probing, at most half full. A slot is tag << 32 | number + 1; zero is empty.
struct Table {
    uint64_t* slots;   // room for the largest capacity
    uint32_t* tags;    // by number, to refill the slots when they grow
    int32_t* first;    // by number: the position of the first appearance
    int64_t largest;   // power of two, at least twice the numbers there can be
    int64_t capacity;  // power of two
    int64_t count;

    void clear(int64_t slot_count) {
        capacity = slot_count;
        std::memset(slots, 0, static_cast<size_t>(capacity) * sizeof(uint64_t));
    }

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

    template <int K, typename T>
    int32_t number(const Map<K, T>& map, int64_t position) {
        const uint32_t tag = map.tag(position);
        int64_t slot = home(tag);
        for (; slots[slot] != 0; slot = (slot + 1) & (capacity - 1)) {
            const auto number = static_cast<int32_t>(static_cast<uint32_t>(slots[slot]) - 1);
            if (slots[slot] >> 32 == tag && map.equal(first[number], position)) return number;
        }
        slots[slot] = entry(tag, count);
        tags[count] = tag;
        first[count] = static_cast<int32_t>(position);
        const auto number = static_cast<int32_t>(count++);
        if (capacity < largest && 2 * count > capacity) grow();
        return number;
    }
};

// ---- One pass: windows -> numbers ----

// seams[j] = 1 where padded column j differs from the one before it within the window's rows.
// changed[x] = 1 where the window at x differs from the one before it; the first of a row always counts as changed.
template <int K, typename T>
void mark_changes(const Map<K, T>& map, int64_t y, uint8_t* __restrict seams, uint8_t* __restrict changed) {
    const T* __restrict top = map.data + y * map.stride;
    const int64_t stride = map.stride;
    seams[0] = 0;
    for (int64_t j = 1; j < stride; ++j) {
        uint8_t seam = 0;
        for (int row = 0; row < K; ++row)
            seam |= static_cast<uint8_t>(top[row * stride + j] != top[row * stride + j - 1]);
        seams[j] = seam;
    }
    for (int64_t x = 0; x < map.width; ++x) {
        uint8_t change = 0;
        for (int tap = 0; tap < K; ++tap) change |= seams[x + tap];
        changed[x] = change;
    }
    changed[0] = 1;
}

template <int K, typename T>
void number_windows(const Map<K, T>& map, Table& table, uint8_t* seams, uint8_t* changed, int32_t* numbers,
                    int64_t numbers_stride) {
    table.count = 0;
    table.clear(table.largest < kFirstCapacity ? table.largest : kFirstCapacity);
    for (int64_t y = 0; y < map.height; ++y) {
        mark_changes(map, y, seams, changed);
        int32_t* out = numbers + y * numbers_stride;
        int32_t number = 0;
        for (int64_t x = 0; x < map.width;) {
            uint64_t eight = 1;
            if (x + 8 <= map.width) std::memcpy(&eight, changed + x, 8);
            if (eight == 0) {
                for (int i = 0; i < 8; ++i) out[x + i] = number;
                x += 8;
                continue;
            }
            const int64_t end = x + 8 < map.width ? x + 8 : map.width;
            for (; x < end; ++x) {
                if (changed[x]) number = table.number(map, y * map.stride + x);
                out[x] = number;
            }
        }
    }
}

}  // namespace spade

#endif
