"""Record what is launched on a stream, and launch it again as one CUDA graph, by the driver: PyCUDA has no graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating meanwhile


class CudaGraphError(RuntimeError):
    """A call of the driver's graph interface failed; the message names it and its code."""


class CudaGraph:
    """A recorded graph. Its memory is that of the recorded calls: keep their buffers where they are."""

    def __init__(self) -> None:
        self._executable = ctypes.c_void_p()

    def launch(self, stream: int) -> None:
        """Launch everything recorded; `stream` is a CUstream handle. Does not wait."""
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def __del__(self) -> None:
        if self._executable:
            _driver().cuGraphExecDestroy(self._executable)


@contextlib.contextmanager
def recording(stream: int) -> Iterator[CudaGraph]:
    """Everything launched on `stream` in the block is recorded, not run; afterwards the graph can be launched.

    Raises CudaGraphError, also where the block does what cannot be recorded (synchronise, allocate).
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
