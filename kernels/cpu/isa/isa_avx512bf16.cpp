#include "cpu/isa/isa.hpp"
#include "cpu/isa/vec_avx512bf16.hpp"

SPADE_DEFINE_ISA(spade::Avx512Bf16, bf16_avx512bf16)
