"""Statistics of a map on CUDA, and the gradient through them."""
