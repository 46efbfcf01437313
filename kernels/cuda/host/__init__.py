"""The host side of the CUDA kernels: the library, the compiler, the driver, tensors."""
