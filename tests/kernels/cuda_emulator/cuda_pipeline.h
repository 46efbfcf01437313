// Asynchronous copies on the CPU, with the checks that the hardware makes: at once or, with SPADE_EMULATOR_COPIES=late,
// when their thread waits for them. A kernel gives the same result either way.
#ifndef SPADE_EMULATOR_CUDA_PIPELINE_H
#define SPADE_EMULATOR_CUDA_PIPELINE_H

#include <cstddef>

void __pipeline_memcpy_async(void* to, const void* from, size_t bytes);
void __pipeline_commit();
void __pipeline_wait_prior(size_t groups);

#endif
