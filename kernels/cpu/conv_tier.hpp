// What a tier's file of convs exports, from the two templates.
#ifndef SPADE_CONV_TIER_HPP
#define SPADE_CONV_TIER_HPP

#include <cstdint>

#include "conv_few.hpp"
#include "conv_kernel.hpp"
#include "conv_table.hpp"
#include "conv_units.hpp"

namespace spade {
namespace {

template <typename V>
struct ConvTier {
    using E = typename V::Element;

    static int64_t packed_bytes(int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
        const int64_t count = conv_is_few(out_channels, kernel_size)
                                  ? ConvFew<V>::packed_elements(in_channels)
                                  : Conv<V>::packed_elements(out_channels, in_channels, kernel_size);
        return count * static_cast<int64_t>(sizeof(E));
    }

    static void pack(const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed) {
        if (conv_is_few(out_channels, kernel_size))
            ConvFew<V>::pack(weight, out_channels, in_channels, static_cast<E*>(packed));
        else
            Conv<V>::pack(weight, out_channels, in_channels, kernel_size, static_cast<E*>(packed));
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
                ConvFew<V>::area(args, row, row_end);
            else
                Conv<V>::area(args, block, row, row_end);
            begin += last - first;
        }
    }

    // Twelve sums hide the latency; each step is one dot of a full register.
    static int64_t peak(int64_t count) {
        constexpr int sums = 12;
        constexpr int64_t step = 2 * sums * V::width * V::depth;
        alignas(64) static float start[sums * V::width];  // not constants: twelve equal sums would become one
        alignas(64) static E ones[V::width * V::depth];
        typename V::F sum[sums];
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) sum[i] = V::load_f32(start + i * V::width);
        const typename V::Operand x = V::broadcast(ones), w = V::weights(ones);
        const int64_t steps = (count + step - 1) / step;
        for (int64_t at = 0; at < steps; ++at) {
#pragma GCC unroll 16
            for (int i = 0; i < sums; ++i) sum[i] = V::dot(x, w, sum[i]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) V::store_f32(start + i * V::width, sum[i]);
        return steps * step;
    }

    static constexpr ConvFunctions functions{packed_bytes, pack, peak};
};

}  // namespace
}  // namespace spade

#endif
