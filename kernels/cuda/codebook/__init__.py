"""Embed and codebook on CUDA."""
