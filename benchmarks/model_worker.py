"""One engine or peer of benchmarks.model, in a process of its own that works when it is asked to."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.maps import Maps, read_maps
from spade_core.config import GeneratorConfig, preset

PAUSE_S = 0.2  # before a turn: thread pools of the engine before spin for a while after their last work

Array = npt.NDArray[Any]
Run = Callable[[Array, Array | None, Array, Array | None], Array]
"""(labels, instances, symbols, style) of one batch -> image float32 [N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Setting:
    """What all engines of a run share. weights: a checkpoint, or None for seeded ones; labels: see `read_maps`."""

    preset: str
    weights: Path | None
    labels: Path | None
    onnx: Path  # the dense graph
    threads: int

    @property
    def config(self) -> GeneratorConfig:
        if self.weights is None:
            return preset(self.preset)
        from spade_core.checkpoints import load

        return load(self.weights).config


def describe(name: str) -> tuple[str, str, str]:
    """(engine, form, precision) of a row's name."""
    if name.startswith("torch-codebook"):
        return "torch", "codebook", name.rsplit("-", 1)[1]
    engine, _, precision = name.partition("-")
    return engine, "codebook" if engine == "cpu" else "dense", precision or "fp32"


class Worker:
    """An engine's process. Start it with `with`; the process ends with the block."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # each loads only its own libraries
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, name, setting), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Worker:
        self._process.start()
        self._theirs.close()  # so that the end of the process ends the connection
        self._receive()  # it is loaded
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def turn(self, first: int, batch: int, repeats: int) -> tuple[list[float], Array]:
        """Seconds of every timed call on maps first .. first + batch - 1, and their images [batch, 3, H, W].

        A pause comes first, and an untimed call. Raises RuntimeError if the engine fails.
        """
        time.sleep(PAUSE_S)
        self._connection.send((first, batch, repeats))
        seconds, images = self._receive()
        return seconds, images

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError(f"[benchmark] expected {self.name} to run but its process ended; see above") from None


def _serve(connection: Connection, name: str, setting: Setting) -> None:
    config = setting.config
    maps, run = read_maps(config, setting.labels), _runner(name, config, setting)
    connection.send(None)
    while True:
        try:
            first, batch, repeats = connection.recv()
        except EOFError:
            return
        connection.send(_measure(run, maps, slice(first, first + batch), repeats))


def _measure(run: Run, maps: Maps, part: slice, repeats: int) -> tuple[list[float], Array]:
    instances = None if maps.instances is None else maps.instances[part]
    args = maps.labels[part], instances, maps.symbols[part], None if maps.style is None else maps.style[part]
    images = run(*args)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run(*args)
        seconds.append(time.perf_counter() - began)
    return seconds, images


# ---- Engines ----


def _runner(name: str, config: GeneratorConfig, setting: Setting) -> Run:
    """Load the engine or peer called `name`."""
    engine, form, precision = describe(name)
    weights, onnx, threads = setting.weights, setting.onnx, setting.threads
    if engine == "torch":
        return _torch_runner(config, weights, form, precision, threads)
    if engine == "cpu":
        return _cpu_runner(config, weights, precision, threads)
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        return lambda labels, instances, _s, style: np.asarray(session.run(None, _feed(labels, instances, style))[0])
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(onnx), "CPU", hints)
    return lambda labels, instances, _s, style: np.array(model(_feed(labels, instances, style))[0])


def _feed(labels: Array, instances: Array | None, style: Array | None) -> dict[str, Array]:
    feed = {"labels": labels, "instances": instances, "style": style}
    return {name: array for name, array in feed.items() if array is not None}


def _torch_runner(config: GeneratorConfig, weights: Path | None, form: str, precision: str, threads: int) -> Run:
    from serving.engines.load import load_checkpoint
    from serving.engines.torch import TorchEngine

    generator = load_checkpoint(weights, config.preset).generator
    engine = TorchEngine(generator, precision, form, threads=threads)  # type: ignore[arg-type]
    return lambda labels, instances, _s, style: engine.image(labels, instances, style).numpy()


def _cpu_runner(config: GeneratorConfig, weights: Path | None, precision: str, threads: int) -> Run:
    from serving.engines.cpu import CpuEngine
    from serving.engines.load import load_checkpoint

    generator = load_checkpoint(weights, config.preset).generator
    engine = CpuEngine(generator, precision, threads, cache_bytes=0)  # every call is a map never seen before
    return lambda labels, instances, _s, style: engine.image(labels, instances, style)
