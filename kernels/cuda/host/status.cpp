// The sentence for every status, in builds with and without CUDA.

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
            return "the layout is not NCHW or NHWC, or this kernel does not take it";
        case SPADE_CUDA_ERROR_SCRATCH:
            return "scratch is null, too small, or not aligned to 16 bytes";
        case SPADE_CUDA_ERROR_ALIGN:
            return "a pointer is not aligned to its element, or to 16 bytes where the kernel asks for that";
        case SPADE_CUDA_ERROR_LAUNCH:
            return "CUDA refused the launch";
        case SPADE_CUDA_ERROR_ABSENT:
            return "this library was built without CUDA; install a CUDA toolkit (nvcc) and build with SPADE_CUDA=ON";
        default:
            return "unknown status";
    }
}
