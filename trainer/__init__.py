"""Training: data sets, steps, the loop, evaluation."""
