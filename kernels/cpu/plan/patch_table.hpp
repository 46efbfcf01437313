// Remembers the label patches of one resolution level, so that the entries of a patch that was seen before are found
// again, in any map.
//
// A patch of (2k-1) x (2k-1) symbols, with "outside the image" as a symbol, decides its entries alone. It is the key. A
// patch has a slot: the row of its entries in the level's tables. Slots are given out in order and, once all are taken,
// again from the first one on: the patch that was new longest ago is forgotten. A call takes one run of slots, so that
// the codebook step writes its entries in one piece. A patch that is met again in the older half of the slots is made
// new again, so that a map's patches stay known for half the slots at least, however common and old some of them are.
//
// The result is exact although patches are hashed: two patches get one slot only if all their symbols are equal.
#ifndef SPADE_PATCH_TABLE_HPP
#define SPADE_PATCH_TABLE_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace spade {
namespace {

class PatchTable {
 public:
    // most: slots. The look-up starts small and grows.
    PatchTable(int64_t most, int32_t outside, int64_t kernel_size)
        : outside_(static_cast<uint16_t>(outside)),
          k_(kernel_size),
          side_(2 * kernel_size - 1),
          symbols_(side_ * side_),
          most_(most) {
        grow(std::clamp(most, int64_t{1}, first_capacity));
    }

    // The position from which on patches stay known in a call that adds at most `bound` patches.
    int64_t horizon(int64_t bound) {
        while (capacity_ < most_ && forgets(bound)) grow(std::min(most_, 2 * capacity_));
        return first_position(bound) + bound - capacity_;
    }

    // Starts a call that adds at most `bound` patches.
    void begin(int64_t bound) {
        if (bound > std::max(most_, int64_t{1}))
            throw std::invalid_argument("a call adds more patches than the table has slots");
        const int64_t stays = horizon(bound);
        first_ = made_ = first_position(bound);
        reused_ = std::max(stays, first_ - most_ / 2);
        end_ = made_ + bound;
        three_.clear(), five_.clear();
    }

    // Replaces the rows of a plan's patches5 in `index` by slots, and gives new patches their slots. Rows that the
    // index does not name are left out. Returns the lowest position of a patch of the index: the plan holds while it is
    // not below a call's horizon.
    int64_t place(const int32_t* patches3, int64_t rows3, const int32_t* patches5, int64_t rows5, int32_t* index,
                  int64_t pixels) {
        slot_of_.assign(static_cast<size_t>(rows5), none);
        number_of_.assign(static_cast<size_t>(rows3), none);
        key_.resize(static_cast<size_t>(symbols_));
        int64_t oldest = made_ + capacity_;
        for (int64_t i = 0; i < pixels; ++i) {
            const auto row = static_cast<size_t>(index[i]);
            if (row >= slot_of_.size()) throw std::invalid_argument("index names a row beyond patches5");
            int32_t& slot = slot_of_[row];
            if (slot == none) {
                slot = slot_of(patches3, rows3, patches5 + static_cast<int64_t>(row) * k_ * k_);
                oldest = std::min(oldest, positions_[static_cast<size_t>(slot)]);
            }
            index[i] = slot;
        }
        return oldest;
    }

    // Forgets every patch, for good: no position known so far is at or above a later horizon.
    void forget() {
        made_ += int64_t{1} << 40;
        base_ = made_;
    }

    // The patches that are new since `begin`: patches3 and patches5 as a plan has them, and the slot of the first one.
    const std::vector<int32_t>& new_patches3() const { return three_; }
    const std::vector<int32_t>& new_patches5() {
        const auto outside = static_cast<int32_t>(three_.size() / static_cast<size_t>(k_ * k_));
        std::replace(five_.begin(), five_.end(), none, outside);
        return five_;
    }
    int64_t first_slot() const { return slot_at(first_); }

 private:
    static constexpr int32_t none = -1;
    static constexpr int64_t forgotten = -1;
    static constexpr int64_t first_capacity = 1024;

    // Whether such a call would forget a patch that was new since all were forgotten.
    bool forgets(int64_t bound) const { return first_position(bound) + bound - capacity_ > base_; }

    // Adds slots. Every patch keeps its slot, since no slot has been given out twice.
    void grow(int64_t capacity) {
        capacity_ = capacity;
        const auto slots = static_cast<size_t>(capacity);
        keys_.resize(slots * static_cast<size_t>(symbols_));
        hashes_.resize(slots), positions_.resize(slots, forgotten), next_.resize(slots, none);
        heads_.assign(std::bit_ceil(slots), none);
        for (int64_t slot = 0; slot < capacity_; ++slot)
            if (positions_[static_cast<size_t>(slot)] != forgotten) link(static_cast<int32_t>(slot));
    }

    int64_t slot_at(int64_t position) const { return (position - base_) % capacity_; }

    // A run does not reach over the last slot: the slots that are left are passed over.
    int64_t first_position(int64_t bound) const {
        const int64_t rest = capacity_ - slot_at(made_);
        return bound > rest ? made_ + rest : made_;
    }

    // Writes the patch of a row of patches5 to key_. A symbol lies in the k x k patch whose centre is nearest to the
    // middle; where this centre is outside the image, so is the symbol.
    void read_key(const int32_t* patches3, int64_t rows3, const int32_t* five) {
        const int64_t r = k_ / 2;
        for (int64_t i = 0; i < side_; ++i) {
            const int64_t y = std::clamp(i - r, int64_t{0}, k_ - 1);  // the tap, and the symbol's row within it
            for (int64_t j = 0; j < side_; ++j) {
                const int64_t x = std::clamp(j - r, int64_t{0}, k_ - 1);
                const int32_t three = five[y * k_ + x];
                key_[static_cast<size_t>(i * side_ + j)] =
                    three == static_cast<int32_t>(rows3)
                        ? outside_
                        : static_cast<uint16_t>(patches3[three * k_ * k_ + (i - y) * k_ + (j - x)]);
            }
        }
    }

    uint32_t hash_of_key() const {
        uint64_t hash = 0;
        for (int64_t i = 0; i < symbols_; i += 4) {
            uint64_t word = 0;
            std::memcpy(&word, key_.data() + i, static_cast<size_t>(std::min(symbols_ - i, int64_t{4})) * 2);
            hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
            hash ^= hash >> 29;
        }
        return static_cast<uint32_t>(hash >> 32 ^ hash);
    }

    int32_t slot_of(const int32_t* patches3, int64_t rows3, const int32_t* five) {
        read_key(patches3, rows3, five);
        const uint32_t hash = hash_of_key();
        for (int32_t slot = heads_[hash & (heads_.size() - 1)]; slot != none; slot = next_[static_cast<size_t>(slot)]) {
            const auto at = static_cast<size_t>(slot);
            if (hashes_[at] == hash && positions_[at] >= reused_ && std::memcmp(key_at(at), key_.data(), bytes()) == 0)
                return slot;
        }
        if (made_ == end_) throw std::invalid_argument("a call adds more patches than it announced");
        return add(hash, patches3, rows3, five);
    }

    int32_t add(uint32_t hash, const int32_t* patches3, int64_t rows3, const int32_t* five) {
        const auto slot = static_cast<int32_t>(slot_at(made_));
        const auto at = static_cast<size_t>(slot);
        if (positions_[at] != forgotten) unlink(slot);
        std::memcpy(key_at(at), key_.data(), bytes());
        hashes_[at] = hash, positions_[at] = made_++;
        link(slot);
        for (int64_t tap = 0; tap < k_ * k_; ++tap) {
            if (five[tap] == static_cast<int32_t>(rows3)) {
                five_.push_back(none);
                continue;
            }
            int32_t& number = number_of_[static_cast<size_t>(five[tap])];
            if (number == none) {
                number = static_cast<int32_t>(three_.size() / static_cast<size_t>(k_ * k_));
                const int32_t* from = patches3 + five[tap] * k_ * k_;
                three_.insert(three_.end(), from, from + k_ * k_);
            }
            five_.push_back(number);
        }
        return slot;
    }

    size_t bytes() const { return static_cast<size_t>(symbols_) * sizeof(uint16_t); }
    uint16_t* key_at(size_t slot) { return keys_.data() + slot * static_cast<size_t>(symbols_); }

    int32_t& head_of(int32_t slot) { return heads_[hashes_[static_cast<size_t>(slot)] & (heads_.size() - 1)]; }

    void link(int32_t slot) {
        next_[static_cast<size_t>(slot)] = head_of(slot);
        head_of(slot) = slot;
    }

    void unlink(int32_t slot) {
        int32_t* to = &head_of(slot);
        while (*to != slot) to = &next_[static_cast<size_t>(*to)];
        *to = next_[static_cast<size_t>(slot)];
    }

    const uint16_t outside_;
    const int64_t k_, side_, symbols_;  // of SPADE's convs; of a patch
    const int64_t most_;
    int64_t capacity_ = 0;         // slots in use
    int64_t made_ = 0;             // position of the next patch
    int64_t base_ = 0;             // position of the first patch since all were forgotten, which has slot 0
    int64_t first_ = 0, end_ = 0;  // of the call: the positions that its new patches may take
    int64_t reused_ = 0;           // of the call: the lowest position of a patch that is not made new again
    // By slot. Patches whose hashes have the same low bits are a list.
    std::vector<uint16_t> keys_;
    std::vector<uint32_t> hashes_;
    std::vector<int64_t> positions_;
    std::vector<int32_t> next_, heads_;
    // Of the call: its new patches, and of one plan: the slots of patches5 and the new numbers of patches3.
    std::vector<int32_t> three_, five_, slot_of_, number_of_;
    std::vector<uint16_t> key_;
};

}  // namespace
}  // namespace spade

#endif
