"""Stands in for TensorRT's runtime and PyCUDA: device memory is host memory, and ONNX Runtime computes.

What it checks of `serving.engines.tensorrt` is our side: shapes, addresses, buffers, when a graph is recorded and used.
Types and names are checked against the real bindings elsewhere (tests/export/test_tensorrt.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from export.tensorrt.library import Library
from export.tensorrt.options import Kind
from export.tensorrt.profiles import Profile
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

    def __init__(self, onnx_path: Path, profiles: list[Profile]) -> None:
        self.session, self.profiles, self.profile = open_session("onnxruntime", onnx_path), profiles, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == Stream.handle
        calls.append(f"profile {profile}")
        self.profile, self.shapes = profile, {}
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        least, _, most = self.profiles[self.profile][name]
        return all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))

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
        ctypes.memmove(self.addresses["image"], image.ctypes.data, image.nbytes)
        return True


class CudaEngine:
    """An engine of the profiles that the project builds."""

    def __init__(self, context: ExecutionContext) -> None:
        self.context, self.num_optimization_profiles = context, len(context.profiles)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return list(self.context.profiles[profile][name])

    def create_runtime_config(self) -> Any:
        return RuntimeConfig()

    def create_execution_context(self, config: Any = None) -> ExecutionContext:
        calls.append("context" if config is None else f"context {config.cuda_graph_strategy} {config.specialised}")
        return self.context


class RuntimeConfig:
    """How TensorRT for RTX runs an engine, and its cache of compiled kernels, which knows one GPU."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = self.specialised = ""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__({"dynamic_shapes_kernel_specialization_strategy": "specialised"}.get(name, name), value)

    def create_runtime_cache(self) -> Any:
        return type(
            "Cache", (), {"deserialize": lambda _s, blob: blob == b"kernels", "serialize": lambda _s: b"kernels"}
        )()

    def set_runtime_cache(self, _cache: Any) -> bool:
        return True


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def get_engine_validity(self, content: bytes) -> tuple[int, int]:
        return (0, 0) if content == b"engine" else (2, 3)

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        if content == b"engine":
            return Runtime.engine
        self.logger.log(enum.Enum("Severity", "ERROR").ERROR, "the version differs")  # type: ignore[attr-defined]
        return None

    engine: Any = None


def library(kind: Kind, onnx_path: Path, profiles: list[Profile]) -> Library:
    """A stand-in for TensorRT, or for TensorRT for RTX, whose engines compute an ONNX file."""
    module: Any = ModuleType(kind)
    Runtime.engine = CudaEngine(ExecutionContext(onnx_path, profiles))
    module.__version__, module.context = "1.2.3", Runtime.engine.context
    module.ILogger, module.Runtime = type("ILogger", (), {}), Runtime
    if kind == "rtx":
        module.CudaGraphStrategy = type("S", (), {"WHOLE_GRAPH_CAPTURE": "whole"})
        module.DynamicShapesKernelSpecializationStrategy = type("S", (), {"LAZY": "lazy"})
        module.EngineValidity = enum.IntEnum("V", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
        module.EngineInvalidityDiagnostics = enum.IntFlag("D", {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2})
    return Library(kind, module)


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
