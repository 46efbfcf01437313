#include "tiers.hpp"
#include "vec_avx512bf16.hpp"

SPADE_DEFINE_TIER(spade::Avx512Bf16, bf16_avx512bf16)
