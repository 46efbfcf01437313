"""The cpu engine: the codebook form on native kernels."""
