// What a tier's file of convs exports: Many holds the convs to many channels, Few those to at most three.
#ifndef SPADE_CONV_TIER_HPP
#define SPADE_CONV_TIER_HPP

#include <cstdint>

#include "conv_few.hpp"
#include "conv_table.hpp"
#include "conv_units.hpp"

namespace spade {
namespace {

template <typename Many, typename Few>
struct ConvTier {
    using E = typename Many::E;

    static int64_t packed_bytes(int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
        const int64_t count = conv_is_few(out_channels, kernel_size)
                                  ? Few::packed_elements(in_channels)
                                  : Many::packed_elements(out_channels, in_channels, kernel_size);
        return count * static_cast<int64_t>(sizeof(E));
    }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed) {
        if (conv_is_few(out_channels, kernel_size))
            Few::pack(weight, out_channels, in_channels, static_cast<E*>(packed));
        else
            Many::pack(weight, out_channels, in_channels, kernel_size, static_cast<E*>(packed));
    }

    static void run(const spade_conv& args, int64_t begin, int64_t end) {
        const ConvUnits units = conv_units(args);
        const int64_t all_rows = args.n * args.height;
        while (begin < end) {
            const int64_t block = begin / units.groups, first = begin % units.groups;
            const int64_t last = first + (end - begin) < units.groups ? first + (end - begin) : units.groups;
            const int64_t row = first * units.rows;
            const int64_t row_end = last * units.rows < all_rows ? last * units.rows : all_rows;
            if (conv_is_few(args.out_channels, args.kernel_size))
                Few::area(args, row, row_end);
            else
                Many::area(args, block, row, row_end);
            begin += last - first;
        }
    }

    static constexpr ConvFunctions functions{packed_bytes, pack, Many::peak};
};

}  // namespace
}  // namespace spade

#endif
