"""CUDA kernels, their twins and their Python side; see docs/cuda.md."""
