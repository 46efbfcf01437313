#include "conv_amx.hpp"

#include "conv_tier.hpp"

namespace spade {
using Convs = ConvTier<ConvAmx, ConvFew<Avx512Bf16>>;
const ConvFunctions conv_bf16_amx = Convs::functions;
}  // namespace spade

void spade_conv_bf16_amx(const spade_conv* args, int64_t begin, int64_t end) { spade::Convs::run(*args, begin, end); }
