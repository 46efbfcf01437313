// The names that one tier gives the header: included by the one file per tier that is compiled for its instruction set.
#ifndef SPADE_TIERS_HPP
#define SPADE_TIERS_HPP

#include "codebook.hpp"
#include "embed.hpp"
#include "image.hpp"
#include "modulate.hpp"
#include "norm.hpp"

#define SPADE_DEFINE_TIER(V, tier)                                                                                    \
    void spade_embed_##tier(const spade_embed* args, int64_t begin, int64_t end) {                                    \
        spade::embed<V>(*args, begin, end);                                                                           \
    }                                                                                                                 \
    void spade_codebook_##tier(const spade_codebook* args, int64_t begin, int64_t end, void* scratch) {               \
        spade::codebook<V>(*args, begin, end, scratch);                                                               \
    }                                                                                                                 \
    void spade_codebook_pack_##tier(const float* weight, int64_t taps, int64_t channels, void* packed) {              \
        spade::codebook_pack<V>(weight, taps, channels, packed);                                                      \
    }                                                                                                                 \
    void spade_modulate_##tier(const spade_modulate* args, int64_t begin, int64_t end) {                              \
        spade::modulate<V>(*args, begin, end);                                                                        \
    }                                                                                                                 \
    void spade_norm_##tier(const spade_norm* args, int64_t begin, int64_t end) { spade::norm<V>(*args, begin, end); } \
    void spade_image_##tier(const spade_image* args, int64_t begin, int64_t end) { spade::image<V>(*args, begin, end); }

#endif
