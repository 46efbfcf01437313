"""Weights to ONNX files, and ONNX files to TensorRT engines."""
