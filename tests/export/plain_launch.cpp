// Launches the plugin's kernels as TensorRT does, on the CPU: inputs, then 32-bit sizes, then the output.

#include <cuda_runtime.h>

#include "cuda/modulate/modulate_codebook.cu"

extern "C" int launch_plain(unsigned grid, unsigned block, const float* x, const float* entries, const int32_t* index,
                            const int32_t* sizes, float* out) {
    cudaLaunchConfig_t config;
    config.gridDim = dim3(grid);
    config.blockDim = dim3(block);
    return cudaLaunchKernelEx(&config, spade_modulate_codebook_nchw_float32_plain, x, entries, index, sizes[0],
                              sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], out);
}
