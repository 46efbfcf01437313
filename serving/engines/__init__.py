"""Engines: label maps in, images out. Knows no server."""
