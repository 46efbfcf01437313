#include "codebook_amx.hpp"

void spade_codebook_pack_bf16_amx(const float* weight, int64_t taps, int64_t channels, void* packed) {
    spade::CodebookAmx::pack(weight, taps, channels, packed);
}

void spade_codebook_bf16_amx(const spade_codebook* args, int64_t begin, int64_t end, void* scratch) {
    spade::CodebookAmx::run(*args, begin, end, scratch);
}
