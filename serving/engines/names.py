"""The names of engines and precisions. Imports nothing, so that the command line can list the names quickly."""

ENGINES = ("auto", "torch", "cpu")  # engines that run a checkpoint; `tensorrt` runs an engine file
PRECISIONS = ("auto", "fp32", "bf16", "int8", "fp16")  # int8: cpu engine with AMX only; fp16: CUDA only
