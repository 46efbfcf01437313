// The fields of each kind of step's C struct, so that Python can lay out the same struct as a NumPy record.
#ifndef SPADE_STEP_FIELDS_HPP
#define SPADE_STEP_FIELDS_HPP

#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "spade_kernels.h"

namespace spade {
namespace {

// A field of a step's arguments: its name, offset in bytes, and NumPy type (u8 for a pointer, which holds an address).
using Field = std::tuple<std::string, size_t, std::string>;

template <typename Type>
Field field(const char* name, size_t offset) {
    return {name, offset, std::is_pointer_v<Type> ? "u8" : std::is_integral_v<Type> ? "i8" : "f8"};
}

#define SPADE_FIELD(name) field<decltype(Args::name)>(#name, offsetof(Args, name))

std::vector<Field> embed_fields() {
    using Args = spade_embed;
    return {SPADE_FIELD(table), SPADE_FIELD(bias), SPADE_FIELD(patches),  SPADE_FIELD(out),
            SPADE_FIELD(rows),  SPADE_FIELD(taps), SPADE_FIELD(symbols),  SPADE_FIELD(depth),
            SPADE_FIELD(width), SPADE_FIELD(relu), SPADE_FIELD(zero_row), SPADE_FIELD(as_bytes)};
}

std::vector<Field> codebook_fields() {
    using Args = spade_codebook;
    return {SPADE_FIELD(actv),      SPADE_FIELD(patches),    SPADE_FIELD(weight), SPADE_FIELD(bias),
            SPADE_FIELD(entries),   SPADE_FIELD(entry_rows), SPADE_FIELD(rows),   SPADE_FIELD(taps),
            SPADE_FIELD(actv_rows), SPADE_FIELD(blocks),     SPADE_FIELD(form),   SPADE_FIELD(scale),
            SPADE_FIELD(windows),   SPADE_FIELD(interior),   SPADE_FIELD(symbols)};
}

std::vector<Field> modulate_fields() {
    using Args = spade_modulate;
    return {SPADE_FIELD(x),      SPADE_FIELD(entries), SPADE_FIELD(entry_rows), SPADE_FIELD(index),  SPADE_FIELD(mean),
            SPADE_FIELD(rstd),   SPADE_FIELD(out),     SPADE_FIELD(n),          SPADE_FIELD(height), SPADE_FIELD(width),
            SPADE_FIELD(blocks), SPADE_FIELD(shift),   SPADE_FIELD(leaky),      SPADE_FIELD(top),    SPADE_FIELD(left),
            SPADE_FIELD(bottom), SPADE_FIELD(right)};
}

std::vector<Field> norm_fields() {
    using Args = spade_norm;
    return {SPADE_FIELD(x),      SPADE_FIELD(mean),  SPADE_FIELD(rstd),   SPADE_FIELD(n),
            SPADE_FIELD(height), SPADE_FIELD(width), SPADE_FIELD(blocks), SPADE_FIELD(epsilon)};
}

std::vector<Field> image_fields() {
    using Args = spade_image;
    return {SPADE_FIELD(x),     SPADE_FIELD(values), SPADE_FIELD(pixels), SPADE_FIELD(n),      SPADE_FIELD(height),
            SPADE_FIELD(width), SPADE_FIELD(top),    SPADE_FIELD(left),   SPADE_FIELD(bottom), SPADE_FIELD(right)};
}

std::vector<Field> conv_fields() {
    using Args = spade_conv;
    return {SPADE_FIELD(x),           SPADE_FIELD(weight),
            SPADE_FIELD(bias),        SPADE_FIELD(residual),
            SPADE_FIELD(y),           SPADE_FIELD(n),
            SPADE_FIELD(height),      SPADE_FIELD(width),
            SPADE_FIELD(in_channels), SPADE_FIELD(out_channels),
            SPADE_FIELD(kernel_size), SPADE_FIELD(residual_shift),
            SPADE_FIELD(top),         SPADE_FIELD(left),
            SPADE_FIELD(bottom),      SPADE_FIELD(right)};
}

// The fields of the four structs inside. Fields of `modulate` keep their names; the other structs get a prefix each.
std::vector<Field> modulated_conv_fields() {
    using Args = spade_modulated_conv;
    std::vector<Field> fields{SPADE_FIELD(has_shortcut)};
    const auto add = [&fields](const std::string& prefix, size_t start, const std::vector<Field>& of) {
        for (const auto& [name, offset, format] : of) fields.emplace_back(prefix + name, start + offset, format);
    };
    add("", offsetof(Args, modulate), modulate_fields());
    add("conv_", offsetof(Args, conv), conv_fields());
    add("shortcut_", offsetof(Args, shortcut_modulate), modulate_fields());
    add("shortcut_conv_", offsetof(Args, shortcut), conv_fields());
    return fields;
}

#undef SPADE_FIELD

// The kinds of step that Python makes: name, number, fields. Plans are made by plan_levels.hpp alone.
std::vector<std::tuple<std::string, spade_step_kind, std::vector<Field>>> step_fields() {
    return {{"embed", SPADE_STEP_EMBED, embed_fields()},
            {"codebook", SPADE_STEP_CODEBOOK, codebook_fields()},
            {"modulate", SPADE_STEP_MODULATE, modulate_fields()},
            {"norm", SPADE_STEP_NORM, norm_fields()},
            {"image", SPADE_STEP_IMAGE, image_fields()},
            {"conv", SPADE_STEP_CONV, conv_fields()},
            {"modulated_conv", SPADE_STEP_MODULATED_CONV, modulated_conv_fields()}};
}

}  // namespace
}  // namespace spade

#endif
