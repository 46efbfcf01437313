#include "conv_tier.hpp"
#include "vec_avx512.hpp"

namespace spade {
const ConvFunctions conv_float32_avx512 = ConvTier<Avx512>::functions;
}

void spade_conv_float32_avx512(const spade_conv* args, int64_t begin, int64_t end) {
    spade::ConvTier<spade::Avx512>::run(*args, begin, end);
}
