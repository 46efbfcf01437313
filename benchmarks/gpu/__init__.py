"""The GPU benchmark: checks and measurements that need an NVIDIA GPU."""
