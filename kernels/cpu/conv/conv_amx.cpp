#include "cpu/conv/conv_amx.hpp"

#include "cpu/conv/conv_isa.hpp"
#include "cpu/conv/conv_to_rgb_amx.hpp"
#include "cpu/conv/modulated_conv_amx.hpp"

namespace spade {
using Convs = ConvIsa<Amx, ConvAmx, ConvToRgbAmx>;
const ConvFunctions conv_bf16_amx = Convs::functions;
}  // namespace spade

void spade_conv_bf16_amx(const spade_conv* args, int64_t begin, int64_t end) { spade::Convs::run(*args, begin, end); }

void spade_modulated_conv_bf16_amx(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch) {
    spade::ModulatedConvAmx::run(*args, begin, end, scratch);
}
