"""`python -m benchmarks.offline`."""

from benchmarks.offline.run import main

if __name__ == "__main__":  # the processes that are measured import this module
    main()
