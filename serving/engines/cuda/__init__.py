"""The codebook form on CUDA kernels."""
