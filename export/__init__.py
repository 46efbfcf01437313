"""Weights -> ONNX (and, from there, engines)."""
