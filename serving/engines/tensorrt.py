"""The tensorrt engine: an engine file of `spade export --to tensorrt`, on PyCUDA buffers and one stream.

Import needs TensorRT, making one PyCUDA and an NVIDIA GPU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from export.buckets import bucketed
from export.feeds import Feed, dense_feed, level_feed, start_feed
from kernels.ops.plan import plan
from serving.engines.cuda.graph import CudaGraph, CudaGraphError, recording
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig, level_sizes
from spade_core.files.manifest import verify_manifest
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style
from spade_core.types import Images, Instances, Labels, Style

try:
    import tensorrt as trt
except ImportError as error:
    raise ImportError(
        "[engine] expected the package tensorrt for engine tensorrt but it is not installed; on a machine with an "
        "NVIDIA GPU: `pip install 'tensorrt-cu13>=11.4,<12'`, and `pip install 'spade-serve[gpu]'` for PyCUDA"
    ) from error

log = logging.getLogger(__name__)


class TensorrtEngine:
    """Runs an engine file.

    Args:
        path: the file; its folder has a manifest.json, which is verified.
        device: number of the GPU.

    Raises ManifestError, ValueError for an engine of float images, RuntimeError where TensorRT cannot load it.
    """

    name = "tensorrt"
    max_concurrent_calls = 1

    def __init__(self, path: Path, device: int = 0) -> None:
        facts = verify_manifest(path.parent, alone=False, holds=path.name)
        self.config: GeneratorConfig = GeneratorConfig.from_dict(json.loads(facts["config"]))
        self.precision: str = facts["precision"]
        self.form: str = facts["form"]
        self.batch: tuple[int, int, int] = tuple(facts["options"]["batch"])
        if facts["image"] != "uint8":
            raise ValueError(f"[engine] expected an engine with uint8 images but got {facts['image']}; export it again")
        import pycuda.driver as cuda

        cuda.init()
        self._cuda = cuda
        self._device = cuda.Device(device).retain_primary_context()
        self._lock = threading.Lock()
        self._logger = trt.Logger(trt.Logger.WARNING)
        with self._current():
            self._engine = self._load(path, facts["options"]["strip_weights"])
            self._context = self._engine.create_execution_context()
            self._stream = cuda.Stream()
            self._buffers: dict[str, Buffer] = {}
            self._output = OutputAllocator(cuda)
            self._context.set_output_allocator("image", self._output)
            self._shapes: tuple[tuple[int, ...], ...] = ()
            self._graph: CudaGraph | None = None  # of the last shapes: an execution context keeps one shape's state

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3]; see `Engine`.

        More maps than the engine takes at once go through it one part after the other.
        """
        timings = timings if timings is not None else Timings()
        images = []
        for first in range(0, len(labels), self.batch[2]):
            part = slice(first, first + self.batch[2])
            images.append(
                self._part(
                    labels[part],
                    None if instances is None else instances[part],
                    None if style is None else style[part],
                    timings,
                )
            )
        return images[0] if len(images) == 1 else np.concatenate(images)

    def _part(self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings) -> Images:
        count = len(labels)
        if count < self.batch[0]:  # the engine takes no fewer: the last map fills the batch
            fill = [*range(count), *[count - 1] * (self.batch[0] - count)]
            labels = labels[fill]
            instances = None if instances is None else instances[fill]
            style = None if style is None else style[fill]
        began = time.perf_counter()
        feed = self._feed(labels, instances, style, timings)
        planned = time.perf_counter()
        with self._lock, self._current():
            images = self._run(feed)
        timings.plan_s += planned - began
        timings.convs_s += time.perf_counter() - planned
        return images[:count]

    def _feed(self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings) -> Feed:
        if (labels.shape[1], labels.shape[2]) != (self.config.height, self.config.width):
            raise ValueError(
                f"[engine] expected maps of {self.config.height}x{self.config.width}, which the engine was built for, "
                f"but got {labels.shape[1]}x{labels.shape[2]}; resize with NEAREST, or export with --size"
            )
        if self.form == "dense":
            timings.distinct_share = 1.0
            return dense_feed(labels, instances, style, self.config)
        symbols = prepare(labels, instances, self.config)
        styles = check_style(style, len(labels), self.config)
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], self.config.upsamplings)
        levels = plan(symbols, sizes, self.config.symbols, self.config.spade_kernel)
        pixels = sum(level.index.size for level in levels)
        timings.distinct_share = sum(len(level.patches5) for level in levels) / pixels
        return level_feed(bucketed(levels, self.batch[2])) | start_feed(symbols, styles, self.config)

    def _run(self, feed: Feed) -> Images:
        """Inputs to the device, the engine, the image back. Holds the lock and the context."""
        for name, array in feed.items():
            if name not in self._buffers:
                self._buffers[name] = Buffer(self._cuda)
            if self._buffers[name].put(array, self._stream):
                self._graph = None  # it reads where the buffer was
        shapes = tuple(array.shape for array in feed.values())
        repeated, self._shapes = shapes == self._shapes, shapes
        if repeated and self._graph is not None:
            self._graph.launch(self._stream.handle)
        else:
            self._execute(feed, repeated)
        return self._output.image(self._stream)

    def _execute(self, feed: Feed, repeated: bool) -> None:
        """Run without a graph and, when the shapes are those of the run before, record one for the next."""
        self._graph = None
        for name, array in feed.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(
                    f"[engine] expected {name} within the engine's profile but got shape {list(array.shape)}; "
                    "export with a larger --batch"
                )
            self._context.set_tensor_address(name, self._buffers[name].address)
        self._enqueue()
        if not repeated:
            return
        try:
            with recording(self._stream.handle) as graph:
                self._enqueue()
        except (CudaGraphError, RuntimeError) as error:
            log.warning("no CUDA graph for shapes %s, they run without one: %s", self._shapes, error)
        else:
            self._graph = graph

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise RuntimeError("[engine] expected TensorRT to run the engine but it failed; its reason is in the log")

    def _load(self, path: Path, stripped: bool) -> trt.ICudaEngine:
        runtime = trt.Runtime(self._logger)
        engine = cast("trt.ICudaEngine | None", runtime.deserialize_cuda_engine(path.read_bytes()))
        if engine is None:
            raise RuntimeError(
                f"[engine] expected to load '{path}' with TensorRT {trt.__version__} but it failed; an engine is bound "
                "to the TensorRT version and the GPU it was built with: build it here, or with --version-compatible"
            )
        if stripped:
            self._refit(engine, path.with_suffix(".onnx"))
        return engine

    def _refit(self, engine: trt.ICudaEngine, onnx_path: Path) -> None:
        """Put the weights back that were left out of the file."""
        refitter = trt.Refitter(engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(onnx_path)) or not refitter.refit_cuda_engine():
            raise RuntimeError(f"[engine] expected the weights of '{onnx_path}' to fit the engine but they did not")

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """The device's primary context, which PyTorch and TensorRT share, is this thread's."""
        self._device.push()
        try:
            yield
        finally:
            self._device.pop()


class Buffer:
    """An input on the device, with page-locked memory to send it from; both only grow."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._bytes = 0
        self.address = 0

    def put(self, array: npt.NDArray[Any], stream: Any) -> bool:
        """Send an array; True when the buffer moved. The stream is idle when this is called."""
        moved = array.nbytes > self._bytes
        if moved:
            # Both or neither: out of memory, the buffer must stay what it says it is.
            device, host = self._cuda.mem_alloc(array.nbytes), self._cuda.pagelocked_empty(array.nbytes, np.uint8)
            self._device, self._host, self._bytes = device, host, array.nbytes
            self.address = int(device)
        self._host[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._cuda.memcpy_htod_async(self._device, self._host[: array.nbytes], stream)
        return moved


class OutputAllocator(trt.IOutputAllocator):
    """Memory of the image: TensorRT asks for it when it knows the shape. It only grows."""

    def __init__(self, cuda: Any) -> None:
        trt.IOutputAllocator.__init__(self)
        self._cuda = cuda
        self._bytes = 0
        self._device: Any = None
        self._host: Any = None
        self._shape: tuple[int, ...] = ()

    def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:  # noqa: ARG002
        """Called by TensorRT: an address with `size` bytes (cuMemAlloc aligns to 256)."""
        if size > self._bytes:
            device, host = self._cuda.mem_alloc(size), self._cuda.pagelocked_empty(size, np.uint8)
            self._device, self._host, self._bytes = device, host, size
        return int(self._device)

    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """The same for versions that know no stream here."""
        return self.reallocate_output_async(tensor_name, memory, size, alignment, 0)

    def notify_shape(self, tensor_name: str, shape: Any) -> None:  # noqa: ARG002
        """Called by TensorRT with the shape of the image."""
        self._shape = tuple(int(size) for size in shape)

    def image(self, stream: Any) -> Images:
        """Wait for the stream; the image uint8 [N, H, W, 3], a copy."""
        count = int(np.prod(self._shape))
        self._cuda.memcpy_dtoh_async(self._host[:count], self._device, stream)
        stream.synchronize()
        image: Images = self._host[:count].reshape(self._shape).copy()
        return image
