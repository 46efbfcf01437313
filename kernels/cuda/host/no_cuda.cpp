// The functions of spade_cuda.h in a build without CUDA: each returns SPADE_CUDA_ERROR_ABSENT.

#include "spade_cuda.h"

const char* spade_cuda_last_error(void) { return "built without CUDA"; }

int32_t spade_cuda_built(void) { return 0; }

int64_t spade_cuda_use_device(int64_t) { return -SPADE_CUDA_ERROR_ABSENT; }

int64_t spade_cuda_plan_scratch_bytes(const spade_plan_batch*) { return -SPADE_CUDA_ERROR_ABSENT; }

int64_t spade_cuda_norm_scratch_bytes(int64_t, int64_t, int64_t, int64_t) { return -SPADE_CUDA_ERROR_ABSENT; }

int64_t spade_cuda_modulate_codebook_backward_scratch_bytes(int64_t, int64_t, int64_t, int64_t) {
    return -SPADE_CUDA_ERROR_ABSENT;
}

#define SPADE_ABSENT(op, args) \
    int32_t spade_cuda_##op(const args*, void*) { return SPADE_CUDA_ERROR_ABSENT; }

SPADE_ABSENT(plan_find, spade_plan_batch)
SPADE_ABSENT(plan_write, spade_plan_batch)
SPADE_ABSENT(image_conv, spade_image_conv)
SPADE_ABSENT(norm_statistics, spade_norm_statistics)
SPADE_ABSENT(norm_backward, spade_norm_backward)
SPADE_ABSENT(modulate_dense, spade_modulate_dense)
SPADE_ABSENT(modulate_dense_backward, spade_modulate_dense_backward)
SPADE_ABSENT(modulate_codebook, spade_modulate_codebook)
SPADE_ABSENT(modulate_codebook_backward, spade_modulate_codebook_backward)

int32_t spade_cuda_embed(const spade_gather_embed*, int64_t, void*) { return SPADE_CUDA_ERROR_ABSENT; }

int32_t spade_cuda_codebook(const spade_gather_codebook*, int64_t, void*) { return SPADE_CUDA_ERROR_ABSENT; }
