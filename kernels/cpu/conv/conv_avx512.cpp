#include "cpu/conv/conv_isa.hpp"
#include "cpu/isa/vec_avx512.hpp"

namespace spade {
using Convs = ConvIsa<Avx512, Conv<Avx512>, ConvToRgb<Avx512>>;
const ConvFunctions conv_float32_avx512 = Convs::functions;
}  // namespace spade

void spade_conv_float32_avx512(const spade_conv* args, int64_t begin, int64_t end) {
    spade::Convs::run(*args, begin, end);
}

void spade_modulated_conv_float32_avx512(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch) {
    spade::Convs::run_modulated(*args, begin, end, scratch);
}
