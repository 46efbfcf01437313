// Asynchronous copies on the CPU, with the checks of the hardware.
#ifndef SPADE_EMULATOR_CUDA_PIPELINE_H
#define SPADE_EMULATOR_CUDA_PIPELINE_H

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
    if ((bytes != 4 && bytes != 8 && bytes != 16) || reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
        reinterpret_cast<uintptr_t>(from) % bytes != 0)
        emulated_fail("an asynchronous copy that is not of 4, 8 or 16 bytes, or not aligned to them");
    emulated_start([=] { std::memcpy(to, from, bytes); }, emulated_copies);
}
inline void __pipeline_commit() { emulated_commit(emulated_copies); }
inline void __pipeline_wait_prior(size_t groups) { emulated_wait(groups, emulated_copies); }

#endif
