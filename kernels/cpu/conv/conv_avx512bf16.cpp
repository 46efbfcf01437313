#include "cpu/conv/conv_isa.hpp"
#include "cpu/isa/vec_avx512bf16.hpp"

namespace spade {
using Convs = ConvIsa<Avx512Bf16, Conv<Avx512Bf16>, ConvToRgb<Avx512Bf16>>;
const ConvFunctions conv_bf16_avx512bf16 = Convs::functions;
}  // namespace spade

void spade_conv_bf16_avx512bf16(const spade_conv* args, int64_t begin, int64_t end) {
    spade::Convs::run(*args, begin, end);
}

void spade_modulated_conv_bf16_avx512bf16(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch) {
    spade::Convs::run_modulated(*args, begin, end, scratch);
}
