// The host side that all kernels share: checks of arguments, occupancy, and the launch.
#ifndef SPADE_CUDA_CHECK_HPP
#define SPADE_CUDA_CHECK_HPP

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <mutex>
#include <utility>

#include "cuda/host/launch.hpp"
#include "spade_cuda.h"

namespace spade {

inline bool any_null(std::initializer_list<const void*> pointers) {
    for (const void* pointer : pointers)
        if (pointer == nullptr) return true;
    return false;
}

inline bool aligned(std::initializer_list<const void*> pointers, int64_t bytes) {
    for (const void* pointer : pointers)
        if (reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) != 0) return false;
    return true;
}

inline bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

inline bool is_dtype(int64_t dtype) { return within(dtype, SPADE_CUDA_FLOAT32, SPADE_CUDA_BFLOAT16); }

inline int64_t element_bytes(int64_t dtype) { return dtype == SPADE_CUDA_FLOAT32 ? 4 : 2; }

// Whether 32 bits can count the pixels of n images of height x width and C channels.
inline bool is_map(int64_t n, int64_t height, int64_t width, int64_t channels) {
    return within(n, 1, kMaxPixels) && within(height, 1, kMaxPixels) && within(width, 1, kMaxPixels) &&
           within(channels, 1, kMaxChannels) && n <= kMaxPixels / height && n * height <= kMaxPixels / width;
}

// The status of a launch. Stores CUDA's error for spade_cuda_last_error.
int32_t launch_status(cudaError_t error);

// Finds how many blocks of kThreads threads of a kernel run at once on the current device; at least 1. Also gives the
// kernel permission to use more than 48 KB of dynamic shared memory. The number is kept for each kernel and device: a
// query costs as much as a launch. Returns a spade_cuda_status: a device on which the kernel cannot run is refused
// here.
template <typename Kernel>
int32_t resident_blocks(Kernel kernel, int64_t shared_bytes, int64_t& blocks) {
    static std::mutex mutex;
    static std::map<std::pair<Kernel, int>, int64_t> known;
    int device = 0, processors = 0, per_processor = 0;
    if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return launch_status(error);
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto found = known.find({kernel, device}); found != known.end()) {
        blocks = found->second;
        return SPADE_CUDA_OK;
    }
    const auto shared = static_cast<int>(shared_bytes);
    cudaError_t error = cudaSuccess;
    if (shared > 0) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, kThreads,
                                                              static_cast<size_t>(shared));
    if (error == cudaSuccess && per_processor == 0) error = cudaErrorLaunchOutOfResources;
    if (error != cudaSuccess) return launch_status(error);
    blocks = known[{kernel, device}] = static_cast<int64_t>(processors) * per_processor;
    return SPADE_CUDA_OK;
}

// Launches a kernel on a stream; returns a spade_cuda_status.
template <typename... Parameters, typename... Arguments>
int32_t launch(void (*kernel)(Parameters...), const Launch& launch, void* stream, Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(launch.blocks_y), 1);
    config.blockDim = dim3(static_cast<unsigned>(launch.threads_x), static_cast<unsigned>(launch.threads_y), 1);
    config.dynamicSmemBytes = static_cast<size_t>(launch.shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    return launch_status(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Launches a kernel on the grid that grid_of(blocks that run at once) chooses; returns a spade_cuda_status.
template <typename... Parameters, typename GridOf, typename... Arguments>
int32_t launch_resident(void (*kernel)(Parameters...), int64_t shared_bytes, const GridOf& grid_of, void* stream,
                        Arguments... arguments) {
    int64_t resident = 0;
    if (const int32_t status = resident_blocks(kernel, shared_bytes, resident); status != SPADE_CUDA_OK) return status;
    return launch(kernel, grid_of(resident), stream, arguments...);
}

}  // namespace spade

#endif
