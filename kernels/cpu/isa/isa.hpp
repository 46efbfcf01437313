// Defines the functions spade_<op>_<isa> of the C header for one vector type V. Included by one file per ISA, which is
// compiled for that instruction set.
#ifndef SPADE_ISA_HPP
#define SPADE_ISA_HPP

#include "cpu/codebook/codebook.hpp"
#include "cpu/codebook/embed.hpp"
#include "cpu/image/image.hpp"
#include "cpu/modulate/modulate.hpp"
#include "cpu/modulate/norm.hpp"

#define SPADE_DEFINE_ISA(V, isa)                                                                                     \
    void spade_embed_##isa(const spade_embed* args, int64_t begin, int64_t end) {                                    \
        spade::embed<V>(*args, begin, end);                                                                          \
    }                                                                                                                \
    void spade_codebook_##isa(const spade_codebook* args, int64_t begin, int64_t end, void* scratch) {               \
        spade::codebook<V>(*args, begin, end, scratch);                                                              \
    }                                                                                                                \
    void spade_codebook_pack_##isa(const float* weight, int64_t taps, int64_t channels, void* packed) {              \
        spade::codebook_pack<V>(weight, taps, channels, packed);                                                     \
    }                                                                                                                \
    void spade_modulate_##isa(const spade_modulate* args, int64_t begin, int64_t end) {                              \
        spade::modulate<V>(*args, begin, end);                                                                       \
    }                                                                                                                \
    void spade_norm_##isa(const spade_norm* args, int64_t begin, int64_t end) { spade::norm<V>(*args, begin, end); } \
    void spade_image_##isa(const spade_image* args, int64_t begin, int64_t end) { spade::image<V>(*args, begin, end); }

#endif
