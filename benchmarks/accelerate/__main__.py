"""`python -m benchmarks.accelerate`."""

from benchmarks.accelerate.run import main

main()
