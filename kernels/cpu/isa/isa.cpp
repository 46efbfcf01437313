// The table of kernels, one row a kind of step and one column an ISA, and which ISAs this processor runs.

#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "cpu/operations.hpp"
#include "spade_kernels.h"

namespace {

// The functions of the table, from functions of the C header: Args is the member of spade_step::args that they take.

template <auto Args, auto WorkItems>
int64_t work_items(const spade_step& step) {
    return WorkItems(&(step.args.*Args));
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

template <auto Args, auto Count>
int64_t of_isa(const spade_step& step) {
    return Count(static_cast<int32_t>(step.isa), &(step.args.*Args));
}

using Args = decltype(spade_step::args);

#define SPADE_WORK_ITEMS(op) work_items<&Args::op, spade_##op##_work_items>
#define SPADE_WORK_ITEMS_AND_SCRATCH(op) \
    of_isa<&Args::op, spade_##op##_work_items>, of_isa<&Args::op, spade_##op##_scratch_bytes>

#define SPADE_OPERATION(op, long_ranges, runner, ...)                                                     \
    {                                                                                                     \
        long_ranges, __VA_ARGS__, {                                                                       \
            runner<&Args::op, spade_##op##_float32_avx2>, runner<&Args::op, spade_##op##_float32_avx512>, \
                runner<&Args::op, spade_##op##_bf16_avx512bf16>, runner<&Args::op, spade_##op##_bf16_amx> \
        }                                                                                                 \
    }
constexpr spade::RunStep run_plan = run<&Args::plan, spade_plan_run>;

constexpr spade::Operation operations[SPADE_STEP_KINDS] = {
    SPADE_OPERATION(embed, false, run, SPADE_WORK_ITEMS(embed), none),
    SPADE_OPERATION(codebook, false, run_with_scratch, SPADE_WORK_ITEMS_AND_SCRATCH(codebook)),
    SPADE_OPERATION(modulate, false, run, SPADE_WORK_ITEMS(modulate), none),
    SPADE_OPERATION(norm, false, run, SPADE_WORK_ITEMS(norm), none),
    SPADE_OPERATION(image, false, run, SPADE_WORK_ITEMS(image), none),
    SPADE_OPERATION(conv, false, run, SPADE_WORK_ITEMS(conv), none),
    SPADE_OPERATION(modulated_conv, true, run_with_scratch, SPADE_WORK_ITEMS_AND_SCRATCH(modulated_conv)),
    {false, SPADE_WORK_ITEMS(plan), none, {run_plan, run_plan, run_plan, run_plan}},
};

// Returns whether this process may use the tile registers. Linux grants them on request, once for all threads.
bool amx_permitted() {
#if defined(__linux__)
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned amx_bf16 = 1u << 22, avx512_fp16 = 1u << 23, amx_tile = 1u << 24, amx_int8 = 1u << 25;
    constexpr unsigned wanted = amx_bf16 | avx512_fp16 | amx_tile | amx_int8;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & wanted) != wanted) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace

const spade::Operation* spade::find_operation(int64_t kind) {
    return kind >= 0 && kind < SPADE_STEP_KINDS ? &operations[kind] : nullptr;
}

int32_t spade_isa_supported(int32_t isa) {
    const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
    const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16") != 0;
    static const bool amx = avx512bf16 && amx_permitted();
    switch (isa) {
        case SPADE_ISA_AVX2:
            return avx2;
        case SPADE_ISA_AVX512:
            return avx512;
        case SPADE_ISA_AVX512BF16:
            return avx512bf16;
        case SPADE_ISA_AMX:
            return amx;
        default:
            return 0;
    }
}

void spade_codebook_int8_pack(const int8_t* weight, int64_t taps, int64_t channels, void* packed) {
    spade_codebook_int8_pack_amx(weight, taps, channels, packed);
}

void spade_codebook_pack(int32_t isa, const float* weight, int64_t taps, int64_t channels, void* packed) {
    switch (isa) {
        case SPADE_ISA_AVX2:
            return spade_codebook_pack_float32_avx2(weight, taps, channels, packed);
        case SPADE_ISA_AVX512:
            return spade_codebook_pack_float32_avx512(weight, taps, channels, packed);
        case SPADE_ISA_AMX:
            return spade_codebook_pack_bf16_amx(weight, taps, channels, packed);
        default:
            return spade_codebook_pack_bf16_avx512bf16(weight, taps, channels, packed);
    }
}
