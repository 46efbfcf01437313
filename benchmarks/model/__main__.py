"""`python -m benchmarks.model`, the same as `spade bench model`."""

from benchmarks.model.command import model

model()
