// The table of kernels: kind of step by tier, and which tiers this processor runs.

#include "operations.hpp"
#include "spade_kernels.h"

namespace {

template <auto Args, auto Units>
int64_t units(const spade_step& step) {
    return Units(&(step.args.*Args));
}

template <auto Args, auto Kernel>
void run(const spade_step& step, int64_t begin, int64_t end, void*) {
    Kernel(&(step.args.*Args), begin, end);
}

template <auto Args, auto Kernel>
void run_with_scratch(const spade_step& step, int64_t begin, int64_t end, void* scratch) {
    Kernel(&(step.args.*Args), begin, end, scratch);
}

int64_t none(const spade_step&) { return 0; }
int64_t codebook_scratch(const spade_step& step) { return spade_codebook_scratch_bytes(&step.args.codebook); }

using Args = decltype(spade_step::args);

#define SPADE_OPERATION(op, scratch, runner)                                                              \
    {                                                                                                     \
        units<&Args::op, spade_##op##_units>, scratch, {                                                  \
            runner<&Args::op, spade_##op##_float32_avx2>, runner<&Args::op, spade_##op##_float32_avx512>, \
                runner<&Args::op, spade_##op##_bf16_avx512bf16>                                           \
        }                                                                                                 \
    }

constexpr spade::Operation operations[SPADE_STEP_KINDS] = {
    SPADE_OPERATION(embed, none, run),    SPADE_OPERATION(codebook, codebook_scratch, run_with_scratch),
    SPADE_OPERATION(modulate, none, run), SPADE_OPERATION(norm, none, run),
    SPADE_OPERATION(image, none, run),    SPADE_OPERATION(conv, none, run),
};

}  // namespace

const spade::Operation* spade::find_operation(int64_t kind) {
    return kind >= 0 && kind < SPADE_STEP_KINDS ? &operations[kind] : nullptr;
}

int32_t spade_tier_supported(int32_t tier) {
    const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
    switch (tier) {
        case SPADE_TIER_AVX2:
            return avx2;
        case SPADE_TIER_AVX512:
            return avx512;
        case SPADE_TIER_AVX512BF16:
            return avx512 && __builtin_cpu_supports("avx512bf16") != 0;
        default:
            return 0;
    }
}

void spade_codebook_pack(int32_t tier, const float* weight, int64_t taps, int64_t channels, void* packed) {
    switch (tier) {
        case SPADE_TIER_AVX2:
            return spade_codebook_pack_float32_avx2(weight, taps, channels, packed);
        case SPADE_TIER_AVX512:
            return spade_codebook_pack_float32_avx512(weight, taps, channels, packed);
        default:
            return spade_codebook_pack_bf16_avx512bf16(weight, taps, channels, packed);
    }
}
