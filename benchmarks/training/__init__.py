"""A training step against the paper's."""
