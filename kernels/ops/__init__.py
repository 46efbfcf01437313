"""One file an operation: its specification in NumPy, and its step of a native program."""
