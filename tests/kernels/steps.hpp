// Every kind of step on one level, in buffers without a spare byte, so that the sanitizers see every stray access.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "spade_kernels.h"

namespace steps {

using Bytes = std::vector<uint8_t>;  // exactly as long as the header says, on the heap

struct Level {
    int64_t n, height, width, channels, rows3, rows5, taps;
    int64_t blocks() const { return (channels + 31) / 32; }
    int64_t shift() const { return height % 2 == 0 && width % 2 == 0 ? 1 : 0; }  // residual_shift
};

struct Buffers {
    Bytes actv, entries, x, padded, y, banded, pointwise, shown, residual, shown_residual;
    std::vector<float> mean, rstd, values;
    Bytes pixels;
};

inline std::vector<float> floats(std::mt19937& random, int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

inline std::vector<int32_t> rows(std::mt19937& random, int64_t count, int64_t below) {
    std::uniform_int_distribution<int32_t> uniform(0, static_cast<int32_t>(below) - 1);
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = uniform(random);
    return values;
}

template <typename Args>
spade_step step(spade_step_kind kind, int64_t isa, const Args& args) {
    spade_step one{};
    one.kind = kind, one.isa = isa;
    std::memcpy(&one.args, &args, sizeof args);
    return one;
}

// Runs embed, codebook, norm, modulate, conv, modulated_conv and image on one level; returns every output.
inline Buffers run(const Level& level, int32_t isa, int64_t form, int64_t threads, bool part = false) {
    std::mt19937 random(7);
    const int64_t element = isa == SPADE_ISA_AVX2 || isa == SPADE_ISA_AVX512 ? 4 : 2, symbols = 5,
                  blocks = level.blocks();
    const int64_t pixels = level.n * level.height * level.width, shift = level.shift();
    const int64_t small = pixels >> 2 * shift;
    auto bytes = [element](int64_t count) { return Bytes(static_cast<size_t>(count * element)); };
    Buffers out{bytes((level.rows3 + 1) * SPADE_HIDDEN),
                bytes(level.rows5 * blocks * 64),
                bytes(pixels * blocks * 32),
                bytes(level.n * (level.height + 2) * blocks * (level.width + 2) * 32),
                bytes(pixels * blocks * 32),
                bytes(pixels * blocks * 32),
                bytes(pixels * blocks * 32),
                bytes(pixels * 32),
                bytes(small * blocks * 32),
                bytes(small * 32),
                std::vector<float>(static_cast<size_t>(level.n * blocks * 32)),
                {},
                {},
                {}};
    out.rstd = out.mean;
    out.values.resize(static_cast<size_t>(pixels * 3));
    out.pixels.resize(static_cast<size_t>(pixels * 3));

    const auto table = floats(random, level.taps * (symbols + 1) * SPADE_HIDDEN), bias = floats(random, SPADE_HIDDEN);
    const auto patches3 = rows(random, level.rows3 * level.taps, symbols + 1);
    const auto patches5 = rows(random, level.rows5 * level.taps, level.rows3 + 1);
    const auto index = rows(random, pixels, level.rows5);
    const auto start = floats(random, (symbols + 1) * blocks * 32), start_bias = floats(random, blocks * 32);
    const auto start_rows = rows(random, pixels, symbols + 1);
    const auto weight = floats(random, level.taps * SPADE_HIDDEN * 2 * level.channels),
               ab = floats(random, blocks * 64);
    const auto kernel = floats(random, level.channels * level.channels * 9),
               image = floats(random, 27 * level.channels);
    const std::vector<float> no_bias(static_cast<size_t>(blocks * 32));
    Bytes packed(static_cast<size_t>(spade_codebook_packed_bytes(isa, level.taps, level.channels)));
    spade_codebook_pack(isa, weight.data(), level.taps, level.channels, packed.data());
    Bytes packed3(static_cast<size_t>(spade_conv_packed_bytes(isa, level.channels, level.channels, 3)));
    spade_conv_pack(isa, kernel.data(), level.channels, level.channels, 3, packed3.data());
    Bytes packed_rgb(static_cast<size_t>(spade_conv_packed_bytes(isa, 3, level.channels, 3)));
    spade_conv_pack(isa, image.data(), 3, level.channels, 3, packed_rgb.data());
    Bytes packed1(static_cast<size_t>(spade_conv_packed_bytes(isa, level.channels, level.channels, 1)));
    spade_conv_pack(isa, kernel.data(), level.channels, level.channels, 1, packed1.data());

    const std::vector<const void*> tables(static_cast<size_t>(level.n), out.entries.data());
    const std::vector<int64_t> table_rows(static_cast<size_t>(level.n), level.rows5);

    const int64_t n = level.n, h = level.height, w = level.width, c = level.channels;
    // A part of the map leaves out a line and some columns on each side, but only if there is one image.
    const bool in_part = part && n == 1 && h > 2;
    const int64_t top = in_part ? 1 : 0, left = in_part ? w / 3 : 0;
    const int64_t bottom = in_part ? h - 1 : h, right = in_part ? w - w / 4 : w;
    const std::vector<spade_step> steps = {
        step(SPADE_STEP_EMBED, isa,
             spade_embed{start.data(), start_bias.data(), start_rows.data(), out.x.data(), pixels, 1, symbols,
                         blocks * 32, w, 0, 0}),
        step(SPADE_STEP_EMBED, isa,
             spade_embed{start.data(), start_bias.data(), start_rows.data(), out.residual.data(), small, 1, symbols,
                         blocks * 32, w >> shift, 0, 0}),
        step(SPADE_STEP_EMBED, isa,
             spade_embed{start.data(), start_bias.data(), start_rows.data(), out.shown_residual.data(), small, 1,
                         symbols, 32, w >> shift, 0, 0}),
        step(SPADE_STEP_EMBED, isa,
             spade_embed{table.data(), bias.data(), patches3.data(), out.actv.data(), level.rows3, level.taps, symbols,
                         SPADE_HIDDEN, 1, 1, 1}),
        step(SPADE_STEP_CODEBOOK, isa,
             spade_codebook{out.actv.data(), patches5.data(), packed.data(), ab.data(), out.entries.data(), level.rows5,
                            level.rows5, level.taps, level.rows3 + 1, blocks, form}),
        step(SPADE_STEP_NORM, isa, spade_norm{out.x.data(), out.mean.data(), out.rstd.data(), n, h, w, blocks, 1e-5}),
        step(SPADE_STEP_MODULATE, isa,
             spade_modulate{out.x.data(), tables.data(), table_rows.data(), index.data(), out.mean.data(),
                            out.rstd.data(), out.padded.data(), n, h, w, blocks, 0, 1, top, left, bottom, right}),
        step(SPADE_STEP_CONV, isa,
             spade_conv{out.padded.data(), packed3.data(), no_bias.data(), out.residual.data(), out.y.data(), n, h, w,
                        c, c, 3, shift, top, left, bottom, right}),
        step(SPADE_STEP_CONV, isa,
             spade_conv{out.padded.data(), packed1.data(), no_bias.data(), nullptr, out.pointwise.data(), n, h, w, c, c,
                        1, 0, top, left, bottom, right}),
        step(SPADE_STEP_CONV, isa,
             spade_conv{out.padded.data(), packed_rgb.data(), no_bias.data(), out.shown_residual.data(),
                        out.shown.data(), n, h, w, c, 3, 3, shift, top, left, bottom, right}),
        step(SPADE_STEP_MODULATED_CONV, isa,
             spade_modulated_conv{{out.x.data(), tables.data(), table_rows.data(), index.data(), nullptr, nullptr,
                                   nullptr, n, h, w, blocks, 0, 1, top, left, bottom, right},
                                  {nullptr, packed3.data(), no_bias.data(), nullptr, out.banded.data(), n, h, w, c, c,
                                   3, 0, top, left, bottom, right},
                                  1,
                                  {out.residual.data(), tables.data(), table_rows.data(), index.data(), nullptr,
                                   nullptr, nullptr, n, h, w, blocks, shift, 0, top, left, bottom, right},
                                  {nullptr, packed1.data(), no_bias.data(), nullptr, nullptr, n, h, w, c, c, 1, 0, top,
                                   left, bottom, right}}),
        step(SPADE_STEP_IMAGE, isa,
             spade_image{out.shown.data(), out.values.data(), out.pixels.data(), n, h, w, top, left, bottom, right}),
    };
    const std::unique_ptr<spade_pool, void (*)(spade_pool*)> pool(spade_pool_create(threads), &spade_pool_destroy);
    double seconds[SPADE_STEP_KINDS] = {};
    for (int repeat = 0; repeat < 2; ++repeat)
        if (spade_run(steps.data(), static_cast<int64_t>(steps.size()), pool.get(), seconds) != SPADE_OK) std::abort();
    return out;
}

inline bool equal(const Buffers& one, const Buffers& other) {
    return one.actv == other.actv && one.entries == other.entries && one.x == other.x && one.padded == other.padded &&
           one.y == other.y && one.banded == other.banded && one.pointwise == other.pointwise &&
           one.shown == other.shown && one.residual == other.residual && one.mean == other.mean &&
           one.rstd == other.rstd && one.values == other.values && one.pixels == other.pixels;
}

}  // namespace steps
