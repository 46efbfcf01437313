"""spade::Modulate and spade::ModulateLeaky as ahead-of-time TensorRT plugins: the engine carries the kernel's PTX.

The parser prefers a registered plugin to the ONNX file's local function of the same name. The kernel is in
`kernels/cuda/modulate/modulate_codebook.cu`; its arguments are the inputs, then 32-bit sizes, then the output.
"""

# No `from __future__ import annotations`: TensorRT reads the annotations below as types, and the arguments' names.
# ruff: noqa: ARG001

from collections.abc import Callable

import tensorrt as trt
import tensorrt.plugin as trtp

THREADS = 256
TILE = 32  # pixels and channels of a block's tile (kTile in modulate_codebook.hpp)
_DTYPES = {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16"}

_registered: set[str] = set()


def kernel_name(dtype: trt.DataType) -> str:
    """Name of the kernel for maps [N, C, h, w] of `dtype`, without a norm."""
    return f"spade_modulate_codebook_nchw_{_DTYPES[dtype]}_plain"


def register(ptx: Callable[[], str], lazy: bool = False) -> None:
    """Register both plugins with TensorRT, once in a process.

    Args:
        ptx: returns the kernel's PTX; called when TensorRT builds an engine with a plugin.
        lazy: register with the bindings only, for machines without TensorRT's library.
    """
    for name, leaky in (("spade::Modulate", False), ("spade::ModulateLeaky", True)):
        if name not in _registered:
            _registered.add(name)
            _register(name, leaky, ptx, lazy)


def _register(plugin_id: str, leaky: bool, ptx: Callable[[], str], lazy: bool) -> None:
    @trtp.register(plugin_id, lazy_register=lazy)
    def describe(x: trtp.TensorDesc, entries: trtp.TensorDesc, index: trtp.TensorDesc) -> trtp.TensorDesc:
        return x.like()

    @trtp.aot_impl(plugin_id)
    def compiled(
        x: trtp.TensorDesc,
        entries: trtp.TensorDesc,
        index: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        n, channels, height, width = (x.shape_expr[i] for i in range(4))
        launch = trtp.KernelLaunchParams()
        launch.grid_x = n * trtp.cdiv(height * width, TILE) * trtp.cdiv(channels, TILE)
        launch.block_x = THREADS
        upsample = 0
        sizes = (n, height, width, channels, entries.shape_expr[0], upsample, int(leaky))
        arguments = trtp.SymExprs(len(sizes))
        for i, size in enumerate(sizes):
            arguments[i] = trtp.SymInt32(size)
        return kernel_name(x.dtype), ptx(), launch, arguments
