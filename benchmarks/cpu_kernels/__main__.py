"""The command `python -m benchmarks.cpu_kernels`."""

from benchmarks.cpu_kernels.run import main

main()
