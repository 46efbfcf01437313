"""One engine or peer of benchmarks.model, which runs in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.maps import Maps, read_maps
from benchmarks.common.stream import inputs_of
from benchmarks.model.contenders import describe, session_kind
from benchmarks.model.sessions import session_turn
from export.feeds import graph_inputs
from export.openvino_core import openvino_core
from spade_core.config import GeneratorConfig, preset
from spade_core.types import Array

PAUSE_S = 0.2  # pause before a turn: the thread pool of the previous engine spins for a while after its last work

Run = Callable[[Array, Array | None, Array | None], Array]
"""(labels, instances, style) of one batch -> image float32 [N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Setting:
    """What all engines of a run share.

    Attributes:
        weights: a checkpoint; None for the preset's seeded weights.
        labels, maps: folder and number of label maps, as `read_maps` takes them.
        onnx: file of the dense graph.
        tensorrt: engine file of the peer `tensorrt`, made by `spade export`; None where there is none.
    """

    preset_name: str
    weights: Path | None
    labels: Path | None
    maps: int
    onnx: Path
    threads: int
    tensorrt: Path | None = None

    @property
    def config(self) -> GeneratorConfig:
        if self.weights is None:
            return preset(self.preset_name)
        from spade_core.files.checkpoints import load

        return load(self.weights).config


Turn = Callable[[int, int, int], tuple[list[float], Array]]


def load_turn(name: str, setting: Setting) -> Turn:
    """Load the engine or peer called `name`. Its turn takes the first map, the batch size and the number of repeats.

    Maps are numbered as in `benchmarks.common.stream`, without end. A turn pauses, makes one untimed call, and returns
    the seconds of every timed call and the images [batch, 3, H, W].
    """
    config = setting.config
    maps = read_maps(config, setting.labels, setting.maps)
    if kind := session_kind(name):
        return _session_turn(kind, describe(name)[2], setting, maps)
    run = _runner(name, config, setting)

    def turn(first: int, batch: int, repeats: int) -> tuple[list[float], Array]:
        inputs = inputs_of(maps, first, batch)
        time.sleep(PAUSE_S)
        images, seconds = run(*inputs), []
        for _ in range(repeats):
            began = time.perf_counter()
            run(*inputs)
            seconds.append(time.perf_counter() - began)
        return seconds, images

    return turn


def _session_turn(kind: str, precision: str, setting: Setting, maps: Maps) -> Turn:
    from serving.engines.choose import load_checkpoint
    from serving.engines.cpu.engine import CACHE_BYTES, CpuEngine

    generator = load_checkpoint(setting.weights, setting.config.preset).generator
    cache_bytes = 0 if kind == "first" else CACHE_BYTES  # nobody drew the map of a first drawing before
    engine = CpuEngine(generator, precision, setting.threads, cache_bytes=cache_bytes)

    def turn(first: int, batch: int, repeats: int) -> tuple[list[float], Array]:
        assert batch == 1
        time.sleep(PAUSE_S)
        return session_turn(kind, engine, maps, first, repeats)

    return turn


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
        return lambda labels, instances, style: np.asarray(session.run(None, graph_inputs(labels, instances, style))[0])
    if engine == "tensorrt":
        return _tensorrt_runner(setting)
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino_core().compile_model(str(onnx), "CPU", hints)
    return lambda labels, instances, style: np.array(model(graph_inputs(labels, instances, style))[0])


def _torch_runner(config: GeneratorConfig, weights: Path | None, form: str, precision: str, threads: int) -> Run:
    from serving.engines.choose import load_checkpoint
    from serving.engines.reference import TorchEngine

    generator = load_checkpoint(weights, config.preset).generator
    engine = TorchEngine(generator, precision, form, threads=threads)  # type: ignore[arg-type]
    return lambda labels, instances, style: engine.image(labels, instances, style).numpy()


def _cpu_runner(config: GeneratorConfig, weights: Path | None, precision: str, threads: int) -> Run:
    from serving.engines.choose import load_checkpoint
    from serving.engines.cpu.engine import CpuEngine

    generator = load_checkpoint(weights, config.preset).generator
    engine = CpuEngine(generator, precision, threads, cache_bytes=0)  # every call is a map never seen before
    return lambda labels, instances, style: engine.image(labels, instances, style)


def _tensorrt_runner(setting: Setting) -> Run:
    from serving.engines.tensorrt.engine import TensorrtEngine

    assert setting.tensorrt is not None
    engine = TensorrtEngine(setting.tensorrt)

    def run(labels: Array, instances: Array | None, style: Array | None) -> Array:
        images = engine.synthesize(labels, instances, style)
        return images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1  # error: half a step of uint8, 0.004

    return run
