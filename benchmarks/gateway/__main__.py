"""`python -m benchmarks.gateway`."""

from benchmarks.gateway.run import main

main()
