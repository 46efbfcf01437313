"""Requests on their way to an engine: checks, queue, batches, files. Knows no server."""
