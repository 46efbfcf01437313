// The intrinsics of AMX and AVX512-FP16 that the kernels use, on processors with AVX-512 and its bf16, or with AVX2 and
// avx512.h. Compiled against the headers in this folder, the kernels run unchanged, and give a processor's own bits.
//
// The kernels' flags for AMX and AVX512-FP16 are left out, so that the compiler makes no such instruction by itself.
// Two things differ from the processor. The compiler sees what the tile instructions read and write, so that a missing
// amx_publish does not show. And NaNs may hold other bits.
#ifndef SPADE_EMULATOR_IMMINTRIN_H
#define SPADE_EMULATOR_IMMINTRIN_H

#pragma GCC system_header  // for include_next, which -Wpedantic warns of
#include_next <immintrin.h>

#ifndef __AVX512F__
#include "avx512.h"
#endif
#include "float16.h"
#include "tiles.h"

#endif
