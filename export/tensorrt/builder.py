"""Build an engine of an ONNX file with TensorRT 11.4 or with TensorRT for RTX.

The network is strongly typed: the ONNX graph has the precision. TensorRT needs an NVIDIA GPU to build, TensorRT for RTX
needs none.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx

from export.functions import inlined, modulations
from export.onnx import read_metadata
from export.tensorrt.library import Api, EngineError, Library, LibraryLog, implementation, library_log, make_builder
from export.tensorrt.options import PORTABLE, EngineOptions, refusals
from export.tensorrt.profiles import input_profiles
from kernels.cuda.host.toolkit import ToolkitError, compile_ptx
from spade_core.config import GeneratorConfig
from spade_core.files.manifest import sha256
from spade_core.files.whole_file import write_whole

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)

BUILT = "built, not run"

Progress = Callable[[str, int, int], bool]
"""(phase, steps done, all steps) -> whether to go on. Called from TensorRT's threads."""


def build_engine(
    library: Library, onnx_path: Path, plan_path: Path, options: EngineOptions, progress: Progress
) -> dict[str, Any]:
    """Build the engine of an ONNX file that `spade export` wrote, to `plan_path`; takes seconds (RTX) or minutes.

    Writes the layers beside the plan, to `<stem>.layers.json`. `progress` may end the build. Returns facts for a
    manifest: the properties of the graph, runtime, its exact version, targets, scratch memory, options, hash of the
    ONNX file. Raises EngineError, ValueError.
    """
    model = onnx.load(str(onnx_path), load_external_data=False)
    metadata = read_metadata(model)
    config = GeneratorConfig.from_dict(json.loads(metadata["config"]))
    for name, reason in refusals(library.kind, options, metadata["precision"], metadata["form"]):
        raise ValueError(f"[tensorrt] {name}: {reason}")
    plugins = modulations(model) if library.kind == "tensorrt" and options.plugin is not False else 0
    if plugins:
        _register_plugins()
    trt, said = library.trt, library_log(library.trt)
    said.clear()
    builder = make_builder(library)
    network = builder.create_network(network_flags(library))
    parse(trt, network, onnx_path, inline=not plugins)
    check_plugins(trt, network, plugins)
    build = builder.create_builder_config()
    configure(library, build, options)
    for shapes in input_profiles(config, metadata["form"], options.batch):
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, *(trt.Dims(size) for size in sizes))
        if build.add_optimization_profile(profile) < 0:
            raise EngineError(
                f"[tensorrt] expected TensorRT to take a profile of batches {options.batch} but it did not"
            )
    read_timing_cache(library, build, options)
    _write(plan_path, _serialised(trt, builder, network, build, onnx_path, progress))
    write_timing_cache(build, options)
    layers, scratch = _described(library, network, plan_path, said)
    _write(plan_path.with_suffix(".layers.json"), json.dumps(layers, indent=1).encode())
    return {
        **metadata,
        "runtime": library.kind,
        "runtime_version": library.version,
        "targets": None if library.kind == "tensorrt" else list(options.targets or (PORTABLE,)),
        "scratch_bytes": scratch,
        "state": BUILT,
        "options": {**asdict(options), "timing_cache": options.timing_cache and options.timing_cache.name},
        "onnx_sha256": sha256(onnx_path),
        "layers": len(layers["Layers"]),
    }


def _register_plugins() -> None:
    from export.tensorrt.plugin import register

    ptx = _plugin_ptx()  # compile now: an error inside TensorRT's callback would cross its library
    register(lambda: ptx)


def _plugin_ptx() -> str:
    try:
        return compile_ptx("modulate_codebook")
    except ToolkitError as error:
        raise EngineError(f"{error}, or leave the plugin out (--no-plugin): plain operators then do its step") from None


def network_flags(library: Library) -> int:
    """Flags of the network: strongly typed, which TensorRT 10 must be told, and plugins that carry their PTX."""
    trt = library.trt
    flags = [trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED]
    if library.kind == "tensorrt":
        flags.append(trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
    return sum(1 << int(flag) for flag in flags)


def parse(trt: Api, network: tensorrt.INetworkDefinition, onnx_path: Path, inline: bool) -> None:
    """Read an ONNX file, and weights beside it, into a network. Raises EngineError with every parser error.

    With `inline`, local functions are replaced by their bodies first: layers then have names of their own.
    """
    parser = trt.OnnxParser(network, library_log(trt))
    # A plugin for instance norm would tie the engine to this version and GPU.
    parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if inline:
        parsed = parser.parse(inlined(onnx_path, weights=False).SerializeToString(), str(onnx_path))
    else:
        parsed = parser.parse_from_file(str(onnx_path))
    if not parsed:
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(f"[tensorrt] expected '{onnx_path}' to parse but got {errors}")


def check_plugins(trt: Api, network: tensorrt.INetworkDefinition, wanted: int) -> None:
    """Raise EngineError unless the network holds at least `wanted` layers that are plugins."""
    kinds = (trt.LayerType.PLUGIN, trt.LayerType.PLUGIN_V2, trt.LayerType.PLUGIN_V3)
    found = sum(network.get_layer(i).type in kinds for i in range(network.num_layers))
    if found < wanted:
        raise EngineError(
            f"[tensorrt] expected a plugin for each of {wanted} modulate steps but the parser made {found}: it took "
            "plain operators in their place; export the ONNX file again, or leave the plugin out (--no-plugin)"
        )


def configure(library: Library, build: tensorrt.IBuilderConfig, options: EngineOptions) -> None:
    """Set every option of the build except its profiles."""
    trt = library.trt
    build.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the report then holds more than names
    if options.workspace_bytes is not None:
        build.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if library.kind == "rtx":
        _set_targets(library.trt, build, options)
        return
    build.builder_optimization_level = options.optimization_level
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


def _set_targets(rtx: Any, build: Any, options: EngineOptions) -> None:
    """Name the GPUs; without names TensorRT for RTX builds a portable engine."""
    targets = [name for name in options.targets or () if name != PORTABLE]
    if not targets:
        return
    build.num_compute_capabilities = len(targets)
    for i, name in enumerate(targets):
        if not build.set_compute_capability(getattr(rtx.ComputeCapability, name.upper()), i):
            raise EngineError(f"[tensorrt] expected TensorRT for RTX to take target {name} but it did not")


def read_timing_cache(library: Library, build: tensorrt.IBuilderConfig, options: EngineOptions) -> None:
    """Read timings of earlier builds, or start an empty cache. Raises EngineError for another GPU or version."""
    path = options.timing_cache
    if path is None:
        return
    content = path.read_bytes() if path.exists() else b""
    if not build.set_timing_cache(build.create_timing_cache(content), ignore_mismatch=False):
        raise EngineError(
            f"[tensorrt] expected a timing cache of this GPU and {library.title} but got '{path}' of another; name a "
            "file for each"
        )


def write_timing_cache(build: tensorrt.IBuilderConfig, options: EngineOptions) -> None:
    """Write the timings of this build to the cache."""
    if options.timing_cache is not None:
        _write(options.timing_cache, _bytes(build.get_timing_cache().serialize()))


def _serialised(
    trt: Api, builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, build: tensorrt.IBuilderConfig,
    onnx_path: Path, progress: Progress,
) -> bytes:  # fmt: skip
    """The engine file's content. Raises EngineError with TensorRT's reason, KeyboardInterrupt after Ctrl-C."""
    said: LibraryLog = library_log(trt)
    monitor = implementation(ProgressMonitor, trt.IProgressMonitor)(progress)
    build.progress_monitor = monitor
    plan = cast("tensorrt.IHostMemory | None", builder.build_serialized_network(network, build))
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        reason = "it was stopped" if monitor.stopped else said.reasons()
        raise EngineError(f"[tensorrt] expected an engine of '{onnx_path}' but got: {reason}")
    if said.errors:
        log.warning("the engine was built in spite of: %s", said.reasons())
    return _bytes(plan)


def _described(
    library: Library, network: tensorrt.INetworkDefinition, plan_path: Path, said: LibraryLog
) -> tuple[dict[str, Any], int | None]:
    """A report of the engine's layers, and its scratch memory in bytes where TensorRT says it.

    An engine for RTX is not loaded, which needs a GPU: its report lists the network's layers before they are fused.
    """
    if library.kind == "tensorrt":
        return inspect(library, plan_path)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    listed = [{"Name": layer.name, "LayerType": layer.type.name, "Metadata": layer.metadata} for layer in layers]
    return {"Layers": listed, "Of": "the network, before the build"}, max(said.scratch_bytes, default=None)


def inspect(library: Library, plan_path: Path) -> tuple[dict[str, Any], int]:
    """The inspector's report, {"Layers": [..], "I/O Tensors": [..]}, and the engine's scratch memory in bytes."""
    trt = library.trt
    runtime = trt.Runtime(library_log(trt))
    engine = cast("tensorrt.ICudaEngine | None", runtime.deserialize_cuda_engine(plan_path.read_bytes()))
    if engine is None:
        raise EngineError(f"[tensorrt] expected to load the engine just built but got none from '{plan_path}'")
    report: dict[str, Any] = json.loads(
        engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    )
    return report, engine.device_memory_size_v2


class ProgressMonitor:
    """Passes TensorRT's nested phases to one callback, which ends the build by returning False.

    `export.tensorrt.library.implementation` makes it an IProgressMonitor.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.steps: dict[str, int] = {}
        self.stopped = False
        self.interrupted = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: Any) -> None:  # noqa: ARG002
        """TensorRT's callback."""
        self.steps[phase_name] = int(num_steps)
        self._report(phase_name, 0)

    def step_complete(self, phase_name: str, step: Any) -> bool:
        """TensorRT's callback: whether to go on."""
        return self._report(phase_name, int(step) + 1)

    def phase_finish(self, phase_name: str) -> None:
        """TensorRT's callback."""
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


def _bytes(memory: tensorrt.IHostMemory) -> bytes:
    return bytes(cast(Any, memory))  # a buffer, which the bindings do not declare


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda draft: draft.write_bytes(content))
