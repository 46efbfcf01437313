"""Native kernels behind one plain C header, each with its NumPy or PyTorch twin beside it."""
