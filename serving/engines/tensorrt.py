"""The tensorrt engine: an engine file of `spade export --to tensorrt`, on PyCUDA buffers and one stream.

Importing this module needs TensorRT; making an engine needs PyCUDA and an NVIDIA GPU.
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
from export.feeds import Feed, graph_inputs, level_feed, start_feed
from serving.engines.contract import Engine, Inputs
from serving.engines.cuda.graph import CudaGraph, CudaGraphError, recording
from serving.engines.timings import Timings
from spade_core.codebook.plans import distinct_share, plan_levels
from spade_core.config import GeneratorConfig
from spade_core.files.manifest import verify_manifest
from spade_core.types import Images

try:
    import tensorrt as trt
except ImportError as error:
    raise ImportError(
        "[engine] expected the package tensorrt for engine tensorrt but it is not installed; on a machine with an "
        "NVIDIA GPU: `pip install 'tensorrt-cu13>=11.4,<12'`, and `pip install -e '.[gpu]'` in the checkout for PyCUDA"
    ) from error

log = logging.getLogger(__name__)


class TensorrtEngine(Engine):
    """Runs an engine file.

    Args:
        path: the engine file. Its folder holds a manifest.json, which is verified.
        device: number of the GPU.

    Raises ManifestError, ValueError for an engine of float images, RuntimeError where TensorRT cannot load the file.
    """

    name = "tensorrt"

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
            # A graph of the last shapes only: an execution context holds the state of one set of shapes.
            self._graph: CudaGraph | None = None

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        """Checked inputs -> images [N, H, W, 3]; see `Engine.run`.

        A batch larger than the engine's largest runs as several batches, one after the other.
        """
        timings = timings or Timings()
        if inputs.size != (self.config.height, self.config.width):
            height, width = inputs.size
            raise ValueError(
                f"[engine] expected maps of {self.config.height}x{self.config.width}, which the engine was built for, "
                f"but got {height}x{width}; resize with NEAREST, or export with --size"
            )
        most = self.batch[2]
        images = [self._part(inputs.take(slice(at, at + most)), timings) for at in range(0, len(inputs), most)]
        return images[0] if len(images) == 1 else np.concatenate(images)

    def _part(self, inputs: Inputs, timings: Timings) -> Images:
        """One batch that the engine takes at once."""
        count, least = len(inputs), self.batch[0]
        if count < least:  # the last map, repeated, fills the batch
            inputs = inputs.take([*range(count), *[count - 1] * (least - count)])
        began = time.perf_counter()
        feed = self._feed(inputs, timings)
        planned = time.perf_counter()
        with self._lock, self._current():
            images = self._execute(feed)
        timings.plan_s += planned - began
        timings.convs_s += time.perf_counter() - planned
        return images[:count]

    def _feed(self, inputs: Inputs, timings: Timings) -> Feed:
        """The arrays that the graph reads: the maps themselves (dense), or their plan (codebook)."""
        if self.form == "dense":
            timings.distinct_share = 1.0
            return graph_inputs(inputs.labels, inputs.instances, inputs.style)
        levels = plan_levels(inputs.symbols, self.config)
        timings.distinct_share = distinct_share(levels)
        return level_feed(bucketed(levels, self.batch[2])) | start_feed(inputs.symbols, inputs.style, self.config)

    def _execute(self, feed: Feed) -> Images:
        """Send the inputs, run the engine, fetch the images. The caller holds the lock and the context."""
        for name, array in feed.items():
            if name not in self._buffers:
                self._buffers[name] = Buffer(self._cuda)
            if self._buffers[name].put(array, self._stream):
                self._graph = None  # the graph reads the buffer's old address
        shapes = tuple(array.shape for array in feed.values())
        repeated, self._shapes = shapes == self._shapes, shapes
        if repeated and self._graph is not None:
            self._graph.launch(self._stream.handle)
        else:
            self._launch(feed, repeated)
        return self._output.image(self._stream)

    def _launch(self, feed: Feed, repeated: bool) -> None:
        """Run without a graph. Where the shapes are `repeated` from the last run, record a graph for the next run."""
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
        """Fill in the weights that `--strip-weights` left out of the engine file."""
        refitter = trt.Refitter(engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(onnx_path)) or not refitter.refit_cuda_engine():
            raise RuntimeError(f"[engine] expected the weights of '{onnx_path}' to fit the engine but they did not")

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Within the block, this thread's CUDA context is the device's primary one, which PyTorch uses too."""
        self._device.push()
        try:
            yield
        finally:
            self._device.pop()


class Buffer:
    """Device memory for one input, and page-locked host memory to send the input from. Both only grow."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._bytes = 0
        self.address = 0

    def put(self, array: npt.NDArray[Any], stream: Any) -> bool:
        """Send an array. True where the buffer moved to a new address. The stream must be idle."""
        moved = array.nbytes > self._bytes
        if moved:
            # Allocate both before assigning either: when memory runs out, the buffer keeps its old state.
            device, host = self._cuda.mem_alloc(array.nbytes), self._cuda.pagelocked_empty(array.nbytes, np.uint8)
            self._device, self._host, self._bytes = device, host, array.nbytes
            self.address = int(device)
        self._host[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._cuda.memcpy_htod_async(self._device, self._host[: array.nbytes], stream)
        return moved


class OutputAllocator(trt.IOutputAllocator):
    """Memory of the image, which TensorRT asks for once the shape is known. The memory only grows."""

    def __init__(self, cuda: Any) -> None:
        trt.IOutputAllocator.__init__(self)
        self._cuda = cuda
        self._bytes = 0
        self._device: Any = None
        self._host: Any = None
        self._shape: tuple[int, ...] = ()

    def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:  # noqa: ARG002
        """TensorRT's callback: the address of `size` bytes (cuMemAlloc aligns to 256)."""
        if size > self._bytes:
            device, host = self._cuda.mem_alloc(size), self._cuda.pagelocked_empty(size, np.uint8)
            self._device, self._host, self._bytes = device, host, size
        return int(self._device)

    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """TensorRT's callback in versions without the argument `stream`."""
        return self.reallocate_output_async(tensor_name, memory, size, alignment, 0)

    def notify_shape(self, tensor_name: str, shape: Any) -> None:  # noqa: ARG002
        """TensorRT's callback with the shape of the image."""
        self._shape = tuple(int(size) for size in shape)

    def image(self, stream: Any) -> Images:
        """Wait for the stream, then copy the images to uint8 [N, H, W, 3]."""
        count = int(np.prod(self._shape))
        self._cuda.memcpy_dtoh_async(self._host[:count], self._device, stream)
        stream.synchronize()
        image: Images = self._host[:count].reshape(self._shape).copy()
        return image
