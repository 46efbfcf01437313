"""CUDA graphs through the driver's own interface, for the TensorRT engine: PyCUDA has no graphs.

Launches on a stream are recorded once, and launched again as one graph.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate during the recording


class CudaGraphError(RuntimeError):
    """A call of the driver failed; the message names the call and the error code."""


class CudaGraph:
    """A recorded graph. A launch reads and writes the buffers of the recorded calls, which must stay alive."""

    def __init__(self) -> None:
        self._executable = ctypes.c_void_p()

    def launch(self, stream: int) -> None:
        """Launch the graph on `stream`, a CUstream handle. Does not wait. Raises CudaGraphError."""
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def __del__(self) -> None:
        if self._executable:
            _driver().cuGraphExecDestroy(self._executable)


@contextlib.contextmanager
def recording(stream: int) -> Iterator[CudaGraph]:
    """Record all launches on `stream` within the block, without running them. Launch the graph after the block.

    Raises CudaGraphError, also where the block synchronises or allocates, which cannot be recorded.
    """
    handle, graph, recorded = ctypes.c_void_p(stream), ctypes.c_void_p(), CudaGraph()
    _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
    try:
        yield recorded
    except BaseException:
        _driver().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            _driver().cuGraphDestroy(graph)
        raise
    _call("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        _call("cuGraphInstantiateWithFlags", ctypes.byref(recorded._executable), graph, ctypes.c_ulonglong(0))
    finally:
        _driver().cuGraphDestroy(graph)


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_driver(), name)(*arguments)
    if status:
        raise CudaGraphError(f"[tensorrt] expected {name} to succeed but got CUDA driver error {status}")
