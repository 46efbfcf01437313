"""What a training run writes: state, weights, logs, samples, report."""
