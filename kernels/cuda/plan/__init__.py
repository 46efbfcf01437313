"""The plan of a batch on CUDA."""
