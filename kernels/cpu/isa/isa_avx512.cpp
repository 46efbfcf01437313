#include "cpu/isa/isa.hpp"
#include "cpu/isa/vec_avx512.hpp"

SPADE_DEFINE_ISA(spade::Avx512, float32_avx512)
