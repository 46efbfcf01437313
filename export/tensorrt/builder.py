"""Build a TensorRT engine of an ONNX file, on the API of version 11.4.

Importing this file needs TensorRT; building needs an NVIDIA GPU. The network is strongly typed: the ONNX graph has the
precision.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import onnx

from export.onnx import read_metadata
from export.tensorrt.profiles import Range, check_batch, input_ranges
from kernels.cuda.host.toolkit import ToolkitError, compile_ptx
from spade_core.config import GeneratorConfig
from spade_core.files.manifest import sha256
from spade_core.files.whole_file import write_whole

try:
    import tensorrt as trt
except ImportError as error:
    raise ImportError(
        "[tensorrt] expected the package tensorrt but it is not installed; on a machine with an NVIDIA GPU: "
        "`pip install 'tensorrt-cu13>=11.4,<12'`"
    ) from error

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], bool]
"""(phase, steps done, all steps) -> whether to go on. Called from TensorRT's threads."""


class EngineError(RuntimeError):
    """An engine that could not be built; the message holds TensorRT's reason."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        batch: least, usual and largest number of maps.
        optimization_level: 0 (fast build) .. 5 (fast engine).
        timing_cache: file of kernel timings, read if it exists and written again after the build; None keeps no file.
        reproducible: only timings from the cache decide; a missing timing is an error.
        version_compatible: the engine also runs on later versions of TensorRT.
        hardware_compatible: the engine runs on every GPU of Ampere and later, beside GPUs like this machine's.
        refit: the engine's weights can be replaced.
        strip_weights: the engine holds no weights; loading takes them from the ONNX file.
        plugin: the project's kernel does the modulate step; otherwise plain operators do.
        workspace_bytes: largest scratch memory on the GPU; None allows all of it.
    """

    batch: Range = (1, 4, 8)
    optimization_level: int = 3
    timing_cache: Path | None = None
    reproducible: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False
    plugin: bool = True
    workspace_bytes: int | None = None

    def __post_init__(self) -> None:
        check_batch(self.batch)
        if not 0 <= self.optimization_level <= 5:
            raise ValueError(f"[tensorrt] expected an optimization level 0..5 but got {self.optimization_level}")
        if self.reproducible and self.timing_cache is None:
            raise ValueError("[tensorrt] expected a timing cache for a reproducible build but got none; name a file")


def build_engine(onnx_path: Path, plan_path: Path, options: EngineOptions, progress: Progress) -> dict[str, Any]:
    """Build the engine of an ONNX file that `spade export` wrote, to `plan_path`; takes minutes.

    Writes the engine's layers beside the plan, to `<stem>.layers.json`. `progress` may end the build. Returns facts for
    a manifest: configuration, form, precision, TensorRT's version, options, hash of the ONNX file. Raises EngineError,
    ValueError.
    """
    metadata = read_metadata(onnx.load(str(onnx_path), load_external_data=False))
    config = GeneratorConfig.from_dict(json.loads(metadata["config"]))
    logger = trt.Logger(trt.Logger.WARNING)
    if metadata["form"] == "codebook" and options.plugin:
        from export.tensorrt.plugin import register

        ptx = _plugin_ptx()  # compile now: an error inside TensorRT's callback would cross its library
        register(lambda: ptx)
    builder = _builder(logger)
    network = builder.create_network(network_flags())
    parse(network, logger, onnx_path)
    build = builder.create_builder_config()
    configure(build, options)
    profile = builder.create_optimization_profile()
    for name, shapes in input_ranges(config, metadata["form"], options.batch).items():
        profile.set_shape(name, *(trt.Dims(shape) for shape in shapes))
    if build.add_optimization_profile(profile) < 0:
        raise EngineError(f"[tensorrt] expected a profile that TensorRT takes but it refused batches {options.batch}")
    read_timing_cache(build, options)
    monitor = ProgressMonitor(progress)
    build.progress_monitor = monitor
    plan = cast("trt.IHostMemory | None", builder.build_serialized_network(network, build))
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        reason = "it was stopped" if monitor.stopped else "it failed; the log above has TensorRT's reason"
        raise EngineError(f"[tensorrt] expected an engine of '{onnx_path}' but {reason}")
    write_timing_cache(build, options)
    _write(plan_path, _bytes(plan))
    layers = inspect(logger, plan_path)
    _write(plan_path.with_suffix(".layers.json"), json.dumps(layers, indent=1).encode())
    return {
        **metadata,
        "tensorrt": trt.__version__,
        "options": {**asdict(options), "timing_cache": options.timing_cache and options.timing_cache.name},
        "onnx_sha256": sha256(onnx_path),
        "layers": len(layers["Layers"]),
    }


def _plugin_ptx() -> str:
    try:
        return compile_ptx("modulate_codebook")
    except ToolkitError as error:
        raise EngineError(f"{error}, or leave the plugin out (--no-plugin): plain operators then do its step") from None


def _builder(logger: trt.Logger) -> trt.Builder:
    try:
        return trt.Builder(logger)
    except TypeError as error:  # the library's factory gave a null pointer
        raise EngineError(
            f"[tensorrt] expected a TensorRT builder but got none ({error}); it needs TensorRT's builder libraries "
            "(tensorrt-cu13-libs), an NVIDIA GPU and a driver for CUDA 13"
        ) from None


def network_flags() -> int:
    """Flags of the network: strongly typed, which TensorRT 10 must be told, and plugins that carry their PTX."""
    flags = (
        trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
        trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS,
    )
    return sum(1 << int(flag) for flag in flags)


def parse(network: trt.INetworkDefinition, logger: trt.Logger, onnx_path: Path) -> None:
    """Read an ONNX file, and weights beside it, into a network. Raises EngineError with every parser error."""
    parser = trt.OnnxParser(network, logger)
    # A plugin for instance norm would tie the engine to this version and GPU.
    parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if not parser.parse_from_file(str(onnx_path)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(f"[tensorrt] expected '{onnx_path}' to parse but got {errors}")


def configure(build: trt.IBuilderConfig, options: EngineOptions) -> None:
    """Set every option of the build except its profile."""
    build.builder_optimization_level = options.optimization_level
    build.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the report then holds more than names
    if options.workspace_bytes is not None:
        build.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatible:
        build.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    wanted = {
        trt.BuilderFlag.VERSION_COMPATIBLE: options.version_compatible,
        trt.BuilderFlag.REFIT: options.refit,
        trt.BuilderFlag.STRIP_PLAN: options.strip_weights,
        trt.BuilderFlag.REFIT_IDENTICAL: options.strip_weights and not options.refit,
        trt.BuilderFlag.EDITABLE_TIMING_CACHE: options.reproducible,
        trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS: options.reproducible,
    }
    for flag, on in wanted.items():
        if on:
            build.set_flag(flag)


def read_timing_cache(build: trt.IBuilderConfig, options: EngineOptions) -> None:
    """Read timings of earlier builds, or start an empty cache. Raises EngineError for another GPU or version."""
    path = options.timing_cache
    if path is None:
        return
    content = path.read_bytes() if path.exists() else b""
    if not build.set_timing_cache(build.create_timing_cache(content), ignore_mismatch=False):
        raise EngineError(
            f"[tensorrt] expected a timing cache of this GPU and TensorRT {trt.__version__} but got '{path}' of "
            "another; name a file for each"
        )


def write_timing_cache(build: trt.IBuilderConfig, options: EngineOptions) -> None:
    """Write the timings of this build to the cache."""
    if options.timing_cache is not None:
        _write(options.timing_cache, _bytes(build.get_timing_cache().serialize()))


def inspect(logger: trt.Logger, plan_path: Path) -> dict[str, Any]:
    """The engine inspector's report: {"Layers": [..], "I/O Tensors": [..]}, with the tensor formats of each layer."""
    runtime = trt.Runtime(logger)
    engine = cast("trt.ICudaEngine | None", runtime.deserialize_cuda_engine(plan_path.read_bytes()))
    if engine is None:
        raise EngineError(f"[tensorrt] expected to load the engine just built but got none from '{plan_path}'")
    report: dict[str, Any] = json.loads(
        engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    )
    return report


class ProgressMonitor(trt.IProgressMonitor):
    """Passes TensorRT's nested phases to one callback, which ends the build by returning False."""

    def __init__(self, progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self.progress = progress
        self.steps: dict[str, int] = {}
        self.stopped = False
        self.interrupted = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: Any) -> None:  # noqa: ARG002
        self.steps[phase_name] = int(num_steps)
        self._report(phase_name, 0)

    def step_complete(self, phase_name: str, step: Any) -> bool:
        return self._report(phase_name, int(step) + 1)

    def phase_finish(self, phase_name: str) -> None:
        self._report(phase_name, self.steps.pop(phase_name, 1))

    def _report(self, phase: str, done: int) -> bool:
        # An exception must not travel through TensorRT's threads.
        try:
            going = self.progress(phase, done, self.steps.get(phase, done))
        except KeyboardInterrupt:
            going, self.interrupted = False, True
        except Exception:
            log.exception("progress of the engine build failed; the build goes on")
            going = True
        self.stopped = self.stopped or not going
        return not self.stopped


def _bytes(memory: trt.IHostMemory) -> bytes:
    return bytes(cast(Any, memory))  # a buffer, which the bindings do not declare


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda draft: draft.write_bytes(content))
