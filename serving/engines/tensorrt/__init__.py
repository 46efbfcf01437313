"""The engine that runs files of `spade export --to tensorrt`, by TensorRT or TensorRT for RTX."""
