"""Offline batches on a Ray cluster beside plain processes."""
