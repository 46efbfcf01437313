#include "cpu/conv/conv_isa.hpp"
#include "cpu/isa/vec_avx512bf16.hpp"

SPADE_DEFINE_CONVS(Avx512Bf16, bf16_avx512bf16)
