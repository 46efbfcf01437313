"""`python -m benchmarks.cpu_kernels`, the same as `spade bench kernels`."""

from benchmarks.cpu_kernels.command import kernels

kernels()
