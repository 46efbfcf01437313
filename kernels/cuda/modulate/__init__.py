"""SPADE's modulation on CUDA: through the codebook, and dense."""
