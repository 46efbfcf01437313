"""An ONNX file to a TensorRT engine."""
