#include "tiers.hpp"
#include "vec_avx2.hpp"

SPADE_DEFINE_TIER(spade::Avx2, float32_avx2)
