"""Procedurally drawn landscapes: label maps of `spade_core.demo_maps`, rendered as images. A data set without files."""
