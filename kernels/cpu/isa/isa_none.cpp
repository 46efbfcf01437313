// Replaces the ISA files on processors other than x86-64: no ISA is supported, no step runs and nothing is packed. The
// engine asks spade_isa_supported first and reports the missing ISA.

#include "cpu/operations.hpp"
#include "spade_kernels.h"

const spade::Operation* spade::find_operation(int64_t) { return nullptr; }

int32_t spade_isa_supported(int32_t) { return 0; }

void spade_codebook_pack(int32_t, const float*, int64_t, int64_t, void*) {}

void spade_codebook_int8_pack(const int8_t*, int64_t, int64_t, void*) {}

int64_t spade_conv_packed_bytes(int32_t, int64_t, int64_t, int64_t) { return 0; }

void spade_conv_pack(int32_t, const float*, int64_t, int64_t, int64_t, void*) {}

int64_t spade_conv_peak(int32_t, int64_t) { return 0; }
