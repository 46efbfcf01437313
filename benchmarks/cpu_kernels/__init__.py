"""Benchmarks of the CPU kernels, one by one."""
