"""The tensorrt engine: an engine file of `spade export --to tensorrt`, on PyCUDA buffers and one stream.

The manifest beside the file says which library runs it: TensorRT, or TensorRT for RTX. Making an engine needs that
library, PyCUDA and an NVIDIA GPU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.buckets import Rows, bucketed, fits
from export.feeds import Feed, graph_inputs, level_feed, start_feed
from export.tensorrt.library import Library, library_log, load
from kernels.ops.plan import Level
from serving.engines.contract import Engine, Inputs
from serving.engines.cuda.graph import CudaGraph, CudaGraphError, recording
from serving.engines.cuda.lost import watched
from serving.engines.tensorrt.buffers import Buffer
from serving.engines.tensorrt.loading import RuntimeCache, cache_path, load_engine, rtx_context
from serving.engines.timings import Timings
from spade_core.codebook.plans import distinct_share, plan_levels
from spade_core.config import GeneratorConfig
from spade_core.files.manifest import sha256, verify_manifest
from spade_core.types import Images

log = logging.getLogger(__name__)


class TensorrtEngine(Engine):
    """Runs an engine file.

    Args:
        path: the engine file. Its folder holds a manifest.json, which is verified.
        device: number of the GPU.
        library: runs the engine; None imports the one that the manifest names.

    Raises ManifestError, ImportError without the library, ValueError for an engine of float images, RuntimeError where
    the library cannot load the file.
    """

    name = "tensorrt"

    def __init__(self, path: Path, device: int = 0, library: Library | None = None) -> None:
        facts = verify_manifest(path.parent, alone=False, holds=path.name)
        self.config: GeneratorConfig = GeneratorConfig.from_dict(json.loads(facts["config"]))
        self.precision: str = facts["precision"]
        self.form: str = facts["form"]
        self.batch: tuple[int, int, int] = tuple(facts["options"]["batch"])
        if facts["image"] != "uint8":
            raise ValueError(f"[engine] expected an engine with uint8 images but got {facts['image']}; export it again")
        self.library = library or load(facts["runtime"])
        import pycuda.driver as cuda

        cuda.init()
        self._device = cuda.Device(device).retain_primary_context()
        self._cuda = cuda
        self._lock = threading.Lock()
        self._cache: RuntimeCache | None = None
        with self._current():
            self._engine = load_engine(self.library, path, facts)
            if self.library.kind == "rtx":
                file = cache_path(sha256(path))
                self._context, self._cache = rtx_context(self.library.trt, self._engine, file)
            else:
                self._context = self._engine.create_execution_context()
            self._stream = cuda.Stream()
            self._buffers: dict[str, Buffer] = {}
            self._image = Buffer(cuda)
        self._rows = [self._most_rows(i) for i in range(self._engine.num_optimization_profiles)]
        self._profile = 0  # the context starts with the first profile
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
        """One batch that the engine takes at once; maps of unusually many patches run in smaller batches."""
        count, filled = len(inputs), self._filled(inputs)
        if self.form == "dense":
            timings.distinct_share = 1.0
            return self._run(graph_inputs(filled.labels, filled.instances, filled.style), 0, timings)[:count]
        levels = self._planned(filled, timings)
        if fits(levels, self._rows[0]):
            return self._run_codebook(filled, levels, 0, timings)[:count]
        if count > 1:
            halves = slice(0, count // 2), slice(count // 2, count)
            return np.concatenate([self._part(inputs.take(half), timings) for half in halves])
        if len(filled) > 1:
            levels = self._planned(inputs, timings)
        return self._run_codebook(inputs, levels, -1, timings)  # the last profile takes any plan of one map

    def _filled(self, inputs: Inputs) -> Inputs:
        """A batch of at least the engine's least: the last map is repeated."""
        count, least = len(inputs), self.batch[0]
        return inputs if count >= least else inputs.take([*range(count), *[count - 1] * (least - count)])

    def _planned(self, inputs: Inputs, timings: Timings) -> list[Level]:
        began = time.perf_counter()
        levels = plan_levels(inputs.symbols, self.config)
        timings.distinct_share = distinct_share(levels)
        timings.plan_s += time.perf_counter() - began
        return levels

    def _run_codebook(self, inputs: Inputs, levels: list[Level], profile: int, timings: Timings) -> Images:
        profile %= len(self._rows)
        began = time.perf_counter()
        padded = bucketed(levels, self._rows[profile])
        feed = level_feed(padded) | start_feed(inputs.symbols, inputs.style, self.config)
        timings.plan_s += time.perf_counter() - began
        return self._run(feed, profile, timings)

    def _run(self, feed: Feed, profile: int, timings: Timings) -> Images:
        began = time.perf_counter()
        with self._lock, self._current(), watched(self._stream.synchronize):
            images = self._execute(feed, profile)
        timings.convs_s += time.perf_counter() - began
        return images

    def _most_rows(self, profile: int) -> list[Rows]:
        """The most rows of each level's tables that a profile of the engine takes."""
        if self.form == "dense":
            return []
        names = [(f"patches3_{i}", f"patches5_{i}") for i in range(len(self.config.level_sizes))]
        largest = [[self._engine.get_tensor_profile_shape(name, profile)[2] for name in pair] for pair in names]
        return [(int(three[0]), int(five[0])) for three, five in largest]

    def _execute(self, feed: Feed, profile: int) -> Images:
        """Send the inputs, run the engine, fetch the images. The caller holds the lock and the context."""
        count = len(feed["labels" if self.form == "dense" else "index_0"])
        shape = (count, self.config.height, self.config.width, 3)
        if self._image.reserve(int(np.prod(shape))):
            self._graph = None  # the graph writes to the buffer's old address
        for name, array in feed.items():
            if name not in self._buffers:
                self._buffers[name] = Buffer(self._cuda)
            if self._buffers[name].put(array, self._stream):
                self._graph = None
        shapes = ((profile,), *(array.shape for array in feed.values()))
        repeated, self._shapes = shapes == self._shapes, shapes
        if repeated and self._graph is not None:
            self._graph.launch(self._stream.handle)
        else:
            self._launch(feed, profile, repeated)
        images = self._image.images(shape, self._stream)
        if self._cache is not None:
            self._cache.ran()
        return images

    def _launch(self, feed: Feed, profile: int, repeated: bool) -> None:
        """Run without a graph. Where the shapes are `repeated` from the last run, record a graph for the next run."""
        self._graph = None
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, self._stream.handle):
                raise RuntimeError(f"[engine] expected TensorRT to take profile {profile} but it did not")
            self._profile = profile
        for name, array in feed.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(
                    f"[engine] expected {name} within the engine's profile but got shape {list(array.shape)}; "
                    "export with a larger --batch"
                )
            self._context.set_tensor_address(name, self._buffers[name].address)
        self._context.set_tensor_address("image", self._image.address)
        self._enqueue()
        if not repeated or self.library.kind == "rtx":  # TensorRT for RTX records its own graph
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
            reason = library_log(self.library.trt).reasons()
            raise RuntimeError(f"[engine] expected TensorRT to run the engine but got: {reason}")

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Within the block, this thread's CUDA context is the device's primary one, which PyTorch uses too."""
        self._device.push()
        try:
            yield
        finally:
            self._device.pop()
