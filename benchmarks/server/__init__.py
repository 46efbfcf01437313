"""The Triton server under load."""
