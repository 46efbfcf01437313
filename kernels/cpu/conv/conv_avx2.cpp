#include "cpu/conv/conv_isa.hpp"
#include "cpu/isa/vec_avx2.hpp"

SPADE_DEFINE_CONVS(Avx2, float32_avx2)
