#include "conv_tier.hpp"
#include "vec_avx512bf16.hpp"

namespace spade {
const ConvFunctions conv_bf16_avx512bf16 = ConvTier<Avx512Bf16>::functions;
}

void spade_conv_bf16_avx512bf16(const spade_conv* args, int64_t begin, int64_t end) {
    spade::ConvTier<spade::Avx512Bf16>::run(*args, begin, end);
}
