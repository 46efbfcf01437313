// CUDA's error of the last refused launch, for each host thread.

#include "cuda/host/check.hpp"

namespace {

thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

int32_t spade::launch_status(cudaError_t error) {
    last_error = error;
    // CUDA keeps an error until it is read, and would report it for the caller's next launch.
    if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
    return error == cudaSuccess ? SPADE_CUDA_OK : SPADE_CUDA_ERROR_LAUNCH;
}

const char* spade_cuda_last_error(void) { return cudaGetErrorString(last_error); }

int32_t spade_cuda_built(void) { return 1; }

int64_t spade_cuda_use_device(int64_t device) {
    int before = 0;
    cudaError_t error = cudaGetDevice(&before);
    if (error == cudaSuccess && before != device) error = cudaSetDevice(static_cast<int>(device));
    return error == cudaSuccess ? before : -spade::launch_status(error);
}
