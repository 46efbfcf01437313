#include "conv_tier.hpp"
#include "vec_avx2.hpp"

namespace spade {
const ConvFunctions conv_float32_avx2 = ConvTier<Avx2>::functions;
}

void spade_conv_float32_avx2(const spade_conv* args, int64_t begin, int64_t end) {
    spade::ConvTier<spade::Avx2>::run(*args, begin, end);
}
