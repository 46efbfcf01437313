#include "cpu/codebook/codebook_amx.hpp"
#include "cpu/codebook/embed.hpp"
#include "cpu/image/image.hpp"
#include "cpu/modulate/modulate.hpp"
#include "cpu/modulate/norm.hpp"

void spade_embed_bf16_amx(const spade_embed* args, int64_t begin, int64_t end) {
    spade::embed<spade::Amx>(*args, begin, end);
}

void spade_codebook_pack_bf16_amx(const float* weight, int64_t taps, int64_t channels, void* packed) {
    spade::CodebookAmx<false>::pack(weight, taps, channels, packed);
}

void spade_codebook_int8_pack_amx(const int8_t* weight, int64_t taps, int64_t channels, void* packed) {
    spade::CodebookAmx<true>::pack(weight, taps, channels, packed);
}

void spade_codebook_bf16_amx(const spade_codebook* args, int64_t begin, int64_t end, void* scratch) {
    if (args->scale != nullptr) return spade::CodebookAmx<true>::run(*args, begin, end, scratch);
    spade::CodebookAmx<false>::run(*args, begin, end, scratch);
}

void spade_modulate_bf16_amx(const spade_modulate* args, int64_t begin, int64_t end) {
    spade::modulate<spade::AmxHalf>(*args, begin, end);
}

void spade_norm_bf16_amx(const spade_norm* args, int64_t begin, int64_t end) {
    spade::norm<spade::Amx>(*args, begin, end);
}

void spade_image_bf16_amx(const spade_image* args, int64_t begin, int64_t end) {
    spade::image<spade::Amx>(*args, begin, end);
}
