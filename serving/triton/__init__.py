"""NVIDIA Triton Inference Server: its launcher, its model repository, and the models in it."""
