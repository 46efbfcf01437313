"""`python -m benchmarks.offline`."""

from benchmarks.offline.run import main

main()
