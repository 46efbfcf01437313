"""Load an engine file and make what it runs in: an execution context of TensorRT, or of TensorRT for RTX."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from export.tensorrt.library import Library, library_log
from spade_core.files.whole_file import write_whole

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)


def load_engine(library: Library, path: Path, facts: Mapping[str, Any]) -> tensorrt.ICudaEngine:
    """The engine of a file, with its weights. `facts` are the facts of its manifest. Raises RuntimeError."""
    runtime, content = library.trt.Runtime(library_log(library.trt)), path.read_bytes()
    if library.kind == "rtx":
        check_validity(library.trt, runtime, content, path, str(facts["runtime_version"]))
    engine = cast("tensorrt.ICudaEngine | None", runtime.deserialize_cuda_engine(content))
    if engine is None:
        reasons = library_log(library.trt).reasons()
        raise RuntimeError(
            f"[engine] expected to load '{path}' with {library.title} but got: {reasons}; the engine is of version "
            f"{facts['runtime_version']}, {_bound_to(facts)}"
        )
    if facts["options"]["strip_weights"]:
        _refit(library, engine, path.with_suffix(".onnx"))
    return engine


def _bound_to(facts: Mapping[str, Any]) -> str:
    if facts["runtime"] == "rtx":
        return f"for {', '.join(facts['targets'])}: build it for this GPU with --target"
    return "and bound to that version and its GPU: build it here, or with --version-compatible"


def check_validity(rtx: Any, runtime: Any, content: bytes, path: Path, built_with: str) -> None:
    """Ask TensorRT for RTX, before it loads an engine, whether it runs here. Raises RuntimeError with its reasons."""
    validity, found = runtime.get_engine_validity(content)
    flags = rtx.EngineInvalidityDiagnostics.__members__.values()
    reasons = ", ".join(flag.name for flag in flags if int(found) & int(flag))
    if validity == rtx.EngineValidity.INVALID:
        raise RuntimeError(
            f"[engine] expected an engine that TensorRT for RTX {rtx.__version__} runs here but '{path}', built with "
            f"{built_with}, is refused: {reasons or 'no usable NVIDIA driver or GPU'}; build it with this version, for "
            "this GPU (--target)"
        )
    if validity == rtx.EngineValidity.SUBOPTIMAL:
        log.warning("'%s' runs below its speed on this GPU (%s); build it with --target for this GPU", path, reasons)


def _refit(library: Library, engine: tensorrt.ICudaEngine, onnx_path: Path) -> None:
    """Fill in the weights that `--strip-weights` left out of the engine file."""
    logger = library_log(library.trt)
    refitter = library.trt.Refitter(engine, logger)
    parser = library.trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx_path)) or not refitter.refit_cuda_engine():
        raise RuntimeError(f"[engine] expected the weights of '{onnx_path}' to fit the engine but they did not")


def rtx_context(rtx: Any, engine: Any, cache: Path) -> tuple[Any, RuntimeCache]:
    """An execution context of TensorRT for RTX, and its cache of compiled kernels.

    The library records a CUDA graph of a whole run by itself. For new shapes it runs general kernels while it compiles
    kernels for these shapes.
    """
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    config.dynamic_shapes_kernel_specialization_strategy = rtx.DynamicShapesKernelSpecializationStrategy.LAZY
    kept = RuntimeCache(config.create_runtime_cache(), cache)
    config.set_runtime_cache(kept.cache)
    return engine.create_execution_context(config), kept


class RuntimeCache:
    """Kernels that TensorRT for RTX compiled for this GPU, in a file that the next process reads.

    Args:
        cache: the library's IRuntimeCache.
        path: the file; its folder is made when the cache is first written.
    """

    def __init__(self, cache: Any, path: Path) -> None:
        self.cache, self.path = cache, path
        self._runs = 0
        if path.exists() and not cache.deserialize(path.read_bytes()):
            log.info("'%s' is of another GPU, driver or version; kernels are compiled again", path)

    def ran(self) -> None:
        """Count a run. After 1, 10, 100, .. runs the file is written, as kernels are compiled beside the first runs."""
        self._runs += 1
        if self._runs != 10 ** (len(str(self._runs)) - 1):
            return
        content = bytes(self.cache.serialize())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, lambda draft: draft.write_bytes(content))
        except OSError as error:
            log.warning("the next start compiles its kernels again, since they could not be kept: %s", error)


def cache_path(engine_sha256: str) -> Path:
    """The file of compiled kernels for an engine file, in $XDG_CACHE_HOME, or ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "spade-serve" / "tensorrt-rtx" / f"{engine_sha256}.kernels"
