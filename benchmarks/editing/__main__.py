"""`python -m benchmarks.editing`."""

from benchmarks.editing.run import main

main()
