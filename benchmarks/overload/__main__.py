"""`python -m benchmarks.overload`."""

from benchmarks.overload.run import main

main()
