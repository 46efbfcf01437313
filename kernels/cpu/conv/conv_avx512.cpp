#include "cpu/conv/conv_isa.hpp"
#include "cpu/isa/vec_avx512.hpp"

SPADE_DEFINE_CONVS(Avx512, float32_avx512)
