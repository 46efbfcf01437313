// The detection in kernels/cpu/isa/isa.cpp finds AMX and AVX512-FP16. Where the emulator is compiled for AVX2, the
// detection finds AVX-512 and its bf16 too. Where it is compiled for AVX-512, it needs VNNI's products of bytes.
#ifndef SPADE_EMULATOR_CPUID_H
#define SPADE_EMULATOR_CPUID_H

#pragma GCC system_header  // for include_next, which -Wpedantic warns of
#include_next <cpuid.h>
#include <unistd.h>

#include <cstring>

namespace amx_emulator {

#ifdef __AVX512F__
constexpr unsigned needed = 1u << 11;  // VNNI
#else
constexpr unsigned needed = 0;
inline bool finds(const char* name) {
    if (std::strncmp(name, "avx512", 6) == 0) return true;
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}
#define __builtin_cpu_supports(name) amx_emulator::finds(name)
#endif

inline int get_cpuid_count(unsigned leaf, unsigned subleaf, unsigned* a, unsigned* b, unsigned* c, unsigned* d) {
    if (__get_cpuid_count(leaf, subleaf, a, b, c, d) == 0 || (*c & needed) != needed) return 0;
    *d |= 0xfu << 22;  // AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8
    return 1;
}

// Linux grants the tiles.
inline long arch_prctl(long, int, int) { return 0; }

}  // namespace amx_emulator

#define __get_cpuid_count amx_emulator::get_cpuid_count
#define syscall amx_emulator::arch_prctl

#endif
