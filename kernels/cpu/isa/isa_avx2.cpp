#include "cpu/isa/isa.hpp"
#include "cpu/isa/vec_avx2.hpp"

SPADE_DEFINE_ISA(spade::Avx2, float32_avx2)
