"""Drawn landscapes, a data set without files: label maps of `spade_core.maps.drawn`, rendered as images."""
