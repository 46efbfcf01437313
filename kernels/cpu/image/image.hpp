// Image: three channels of a map -> tanh -> float32 planes, uint8 pixels, or both.
//
// tanh(x) = x + x^3 P(x^2) for |x| < 0.625, else sign(x) (1 - 2 / (exp(2 |x|) + 1)); the bound and P are from Cephes
// (Moshier, tanhf).
//
// Bytes: one cache line of a pixel's block read, 3 or 12 bytes written. Fused: the order of planes, the grey levels.
#ifndef SPADE_IMAGE_HPP
#define SPADE_IMAGE_HPP

#include <cstdint>

#include "spade_kernels.h"

namespace spade {
namespace {

constexpr int64_t image_columns = 256;  // columns converted at a time; their three planes stay in the first-level cache

// Uses the compiler's vector operators, which cover integers, comparisons and selection for every ISA.
template <typename V>
struct Tanh {
    using F = typename V::F;
    typedef int32_t I __attribute__((vector_size(sizeof(F))));

    static F bits(I value) { return reinterpret_cast<F>(value); }
    static I bits(F value) { return reinterpret_cast<I>(value); }

    // exp(x) = 2^n exp(r) for 0 <= x <= 20; exp(r), |r| <= ln(2) / 2, is Taylor's polynomial.
    static F exponential(F x) {
        const I whole = __builtin_convertvector(x * 1.44269504f + 0.5f, I);
        const F n = __builtin_convertvector(whole, F);
        const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln(2) in two parts
        F p = V::set(1.0f / 5040);
        constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
        for (const float c : taylor) p = p * r + c;
        return p * bits((whole + 127) << 23);
    }

    static F of(F x) {
        const I sign = bits(x) & INT32_MIN;
        const F size = bits(bits(x) & INT32_MAX);
        const F bounded = V::min(V::set(10.0f), size);  // from 10 on it is 1 in float32; NaN stays
        const F z = bounded * bounded;
        F p = V::set(-5.70498872745e-3f);
        constexpr float rest[] = {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f};
        for (const float c : rest) p = p * z + c;
        const F small = bounded + bounded * z * p;
        const F large = 1.0f - 2.0f / (exponential(bounded + bounded) + 1.0f);
        return bits(bits(size < 0.625f ? small : large) | sign);
    }
};

inline uint8_t to_pixel(float value) {
    const float level = (value + 1.0f) * 127.5f;
    return static_cast<uint8_t>(static_cast<int32_t>(level < 255.0f ? level : 255.0f));  // never below 0: value >= -1
}

template <typename V>
void image_line(const spade_image& args, int64_t n, int64_t line, int64_t first, int64_t count) {
    const auto* x =
        static_cast<const typename V::Element*>(args.x) + ((n * args.height + line) * args.width + first) * 32;
    alignas(64) float planes[3][image_columns] = {};
    for (int64_t i = 0; i < count; ++i)
        for (int c = 0; c < 3; ++c) planes[c][i] = V::scalar(x + i * 32 + c);
    for (auto& plane : planes)
        for (int64_t i = 0; i < count; i += V::width) V::store_f32(plane + i, Tanh<V>::of(V::load_f32(plane + i)));
    if (args.values != nullptr)
        for (int c = 0; c < 3; ++c)
            for (int64_t i = 0; i < count; ++i)
                args.values[((n * 3 + c) * args.height + line) * args.width + first + i] = planes[c][i];
    if (args.pixels != nullptr) {
        uint8_t* pixels = args.pixels + ((n * args.height + line) * args.width + first) * 3;
        for (int64_t i = 0; i < count; ++i)
            for (int c = 0; c < 3; ++c) pixels[i * 3 + c] = to_pixel(planes[c][i]);
    }
}

template <typename V>
void image(const spade_image& args, int64_t begin, int64_t end) {
    const int64_t lines = args.bottom - args.top;
    for (int64_t item = begin; item < end; ++item)
        for (int64_t first = args.left; first < args.right; first += image_columns) {
            const int64_t rest = args.right - first;
            image_line<V>(args, item / lines, args.top + item % lines, first,
                          rest < image_columns ? rest : image_columns);
        }
}

}  // namespace
}  // namespace spade

#endif
