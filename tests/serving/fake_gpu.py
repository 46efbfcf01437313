"""Stands in for TensorRT's runtime and PyCUDA: device memory is host memory, and ONNX Runtime computes.

What it checks of `serving.engines.tensorrt` is our side: shapes, addresses, buffers, when a graph is recorded and used.
Types and names are checked against the real bindings elsewhere (tests/export/test_tensorrt.py).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from export.verify import open_session

calls: list[str] = []


class Allocation:
    def __init__(self, size: int) -> None:
        self.memory = np.zeros(size, np.uint8)
        calls.append("mem_alloc")

    def __int__(self) -> int:
        return self.memory.ctypes.data


class Stream:
    handle = 7

    def synchronize(self) -> None:
        calls.append("synchronize")


class PrimaryContext:
    depth = 0

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1


def pycuda_driver() -> ModuleType:
    module: Any = ModuleType("pycuda.driver")
    context = PrimaryContext()
    module.context = context
    module.init = lambda: None
    module.Device = lambda _number: type("Device", (), {"retain_primary_context": lambda _self: context})()
    module.Stream, module.mem_alloc = Stream, Allocation
    module.pagelocked_empty = np.empty

    def htod(device: Allocation, host: Any, _stream: Stream) -> None:
        assert context.depth == 1
        device.memory[: host.nbytes] = host

    def dtoh(host: Any, device: Allocation, _stream: Stream) -> None:
        host[:] = device.memory[: host.nbytes]

    module.memcpy_htod_async, module.memcpy_dtoh_async = htod, dtoh
    return module


class ExecutionContext:
    """Runs the ONNX file on whatever the addresses hold, in the shapes that were set."""

    def __init__(self, onnx_path: Path, largest: dict[str, int]) -> None:
        self.session, self.largest = open_session("onnxruntime", onnx_path), largest
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        assert name == "image"
        self.allocator = allocator
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= self.largest.get(name, 1 << 30)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Stream.handle
        calls.append("execute")
        feed = {}
        for name, shape in self.shapes.items():
            dtype = np.dtype({"labels": "u1", "style": "f4"}.get(name, "i4"))
            raw = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[name])
            feed[name] = np.frombuffer(raw, dtype).reshape(shape)
        image = self.session(feed)
        address = self.allocator.reallocate_output_async("image", 0, image.nbytes, 256, stream)
        self.allocator.notify_shape("image", image.shape)
        ctypes.memmove(address, image.ctypes.data, image.nbytes)
        return True


def tensorrt(onnx_path: Path, largest: dict[str, int] | None = None) -> ModuleType:
    module: Any = ModuleType("tensorrt")
    context = ExecutionContext(onnx_path, largest or {})
    engine = type("Engine", (), {"create_execution_context": lambda _self: context})()
    module.__version__, module.context = "fake", context
    module.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda _self, _level: None})
    module.IOutputAllocator = type("IOutputAllocator", (), {})

    class Runtime:
        def __init__(self, _logger: Any) -> None: ...

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            return engine if content == b"engine" else None

    module.Runtime = Runtime
    return module


class Graph:
    """Replays the execution: same shapes, same addresses, whatever they hold now."""

    def __init__(self, context: ExecutionContext) -> None:
        self.context, self.shapes, self.addresses = context, dict(context.shapes), dict(context.addresses)

    def launch(self, stream: int) -> None:
        calls.append("launch")
        assert (self.context.shapes, self.context.addresses) == (self.shapes, self.addresses)
        self.context.execute_async_v3(stream)


def recording(context: ExecutionContext) -> Any:
    @contextlib.contextmanager
    def block(_stream: int) -> Iterator[Graph]:
        calls.append("record")
        before = calls.count("mem_alloc")
        yield Graph(context)
        assert calls.count("mem_alloc") == before  # allocating cannot be recorded

    return block
