// The detection in kernels/cpu/isa/isa.cpp finds AMX and AVX512-FP16 where the emulator can run: on processors with
// VNNI, whose products of bytes the emulator uses. isa.cpp asks for AVX-512 and its bf16 by itself.
#ifndef SPADE_EMULATOR_CPUID_H
#define SPADE_EMULATOR_CPUID_H

#pragma GCC system_header  // for include_next, which -Wpedantic warns of
#include_next <cpuid.h>
#include <unistd.h>

namespace amx_emulator {

inline int get_cpuid_count(unsigned leaf, unsigned subleaf, unsigned* a, unsigned* b, unsigned* c, unsigned* d) {
    constexpr unsigned vnni = 1u << 11;
    if (__get_cpuid_count(leaf, subleaf, a, b, c, d) == 0 || (*c & vnni) == 0) return 0;
    *d |= 0xfu << 22;  // AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8
    return 1;
}

// Linux grants the tiles.
inline long arch_prctl(long, int, int) { return 0; }

}  // namespace amx_emulator

#define __get_cpuid_count amx_emulator::get_cpuid_count
#define syscall amx_emulator::arch_prctl

#endif
