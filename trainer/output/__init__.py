"""The files of a training run: checkpoints, weights, logs, samples, report."""
