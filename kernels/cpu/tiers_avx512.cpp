#include "tiers.hpp"
#include "vec_avx512.hpp"

SPADE_DEFINE_TIER(spade::Avx512, float32_avx512)
