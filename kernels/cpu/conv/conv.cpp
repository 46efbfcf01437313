// The functions of a conv that are the same for all ISAs, and the table of those that each ISA has of its own.

#include "cpu/conv/conv_table.hpp"
#include "cpu/conv/conv_work_split.hpp"
#include "cpu/work_split.hpp"
#include "spade_kernels.h"

namespace {

const spade::ConvFunctions& functions(int32_t isa) {
    switch (isa) {
        case SPADE_ISA_AMX:
            return spade::conv_bf16_amx;
        case SPADE_ISA_AVX512BF16:
            return spade::conv_bf16_avx512bf16;
        case SPADE_ISA_AVX512:
            return spade::conv_float32_avx512;
        default:
            return spade::conv_float32_avx2;
    }
}

}  // namespace

int64_t spade_conv_work_items(const spade_conv* args) {
    return spade::conv_blocks(args->out_channels) * spade::conv_split(*args).groups;
}

int64_t spade_modulated_conv_work_items(int32_t isa, const spade_modulated_conv* args) {
    if (isa == SPADE_ISA_AMX) return args->conv.n * spade::amx_bands(*args).of_image;
    return args->conv.n * spade::conv_bands(*args, spade::element_bytes(isa)).of_image;
}

int64_t spade_modulated_conv_scratch_bytes(int32_t isa, const spade_modulated_conv* args) {
    const int64_t element = spade::element_bytes(isa), line = spade::conv_line(args->conv);
    const int64_t shortcut_line = args->has_shortcut != 0 ? spade::conv_line(args->shortcut) : 0;
    if (isa == SPADE_ISA_AMX) {
        const int64_t rows = spade::amx_bands(*args).rows;
        return ((2 * rows + 3) * line + 2 * rows * shortcut_line) * element;
    }
    const int64_t rows = spade::conv_bands(*args, element).rows;
    int64_t elements = (rows + 2) * line;
    if (args->has_shortcut != 0) {
        elements += rows * shortcut_line;
        elements += rows * spade::conv_blocks(args->conv.out_channels) * args->conv.width * spade::conv_block;
    }
    return elements * element;
}

int64_t spade_conv_packed_bytes(int32_t isa, int64_t out_channels, int64_t in_channels, int64_t kernel_size) {
    return functions(isa).packed_bytes(out_channels, in_channels, kernel_size);
}

void spade_conv_pack(int32_t isa, const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed) {
    functions(isa).pack(weight, out_channels, in_channels, kernel_size, packed);
}

int64_t spade_conv_peak(int32_t isa, int64_t count) { return functions(isa).peak(count); }
