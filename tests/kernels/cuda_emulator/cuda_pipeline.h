// Asynchronous copies on the CPU: at once, with the checks that the hardware makes.
#ifndef SPADE_EMULATOR_CUDA_PIPELINE_H
#define SPADE_EMULATOR_CUDA_PIPELINE_H

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
    if ((bytes != 4 && bytes != 8 && bytes != 16) || reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
        reinterpret_cast<uintptr_t>(from) % bytes != 0) {
        std::fprintf(stderr, "[emulator] an asynchronous copy of %zu bytes that is not aligned to them\n", bytes);
        std::abort();
    }
    std::memcpy(to, from, bytes);
}
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(size_t) {}

#endif
