"""Offline batches on a Ray cluster: label maps of folders and shards to images that are named by their content."""
