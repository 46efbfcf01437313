// Words for every status; the same with CUDA and without.

#include "spade_cuda.h"

const char* spade_cuda_status_message(int32_t status) {
    switch (status) {
        case SPADE_CUDA_OK:
            return "no error";
        case SPADE_CUDA_ERROR_NULL:
            return "a required pointer, or one of a pair, is null";
        case SPADE_CUDA_ERROR_SIZE:
            return "a size is below 1, above its limit, or does not fit another";
        case SPADE_CUDA_ERROR_DTYPE:
            return "the dtype is not float32, float16 or bfloat16";
        case SPADE_CUDA_ERROR_LAYOUT:
            return "the layout is not NCHW or NHWC, or not one that this kernel takes";
        case SPADE_CUDA_ERROR_SCRATCH:
            return "scratch is null, too small, or not aligned to 16 bytes";
        case SPADE_CUDA_ERROR_ALIGN:
            return "a pointer is not aligned to its element, or not to 16 bytes where that is asked";
        case SPADE_CUDA_ERROR_LAUNCH:
            return "CUDA refused the launch";
        case SPADE_CUDA_ERROR_ABSENT:
            return "this library was built without CUDA; install a CUDA toolkit (nvcc) and build with SPADE_CUDA=ON";
        default:
            return "unknown status";
    }
}
