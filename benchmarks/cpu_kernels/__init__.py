"""The CPU kernels, one by one."""
