"""How an engine is built, and what each of the two builders refuses. Needs no TensorRT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.tensorrt.profiles import Range, check_batch

Kind = Literal["tensorrt", "rtx"]
"""TensorRT, which builds for the GPU of its machine, or TensorRT for RTX, which builds ahead of time on any machine."""

PORTABLE = "portable"
RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
DEFAULT_LEVEL = 3

# Tried on TensorRT for RTX 1.7.1: each fails the build inside the library, or changes nothing.
_RTX_LACKS = {
    "timing_cache": "it times no kernels when it builds",
    "reproducible": "it times no kernels when it builds, and two builds of one graph differ in some bytes",
    "version_compatible": "its engines run on the version that built them",
    "hardware_compatible": "its targets say where an engine runs (--target)",
    "refit": "its builder cannot do that without a GPU",
    "strip_weights": "its builder cannot do that without a GPU",
    "plugin": "it has no plugins; plain operators do the modulate step",
}


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
        plugin: the project's kernel does the modulate step (True), plain operators do (False), or the kernel does where
            the builder has plugins (None).
        workspace_bytes: largest scratch memory on the GPU; None allows all of it.
        targets: the GPUs that an engine of TensorRT for RTX runs on, as `parse_targets` returns them; None is portable.
    """

    batch: Range = (1, 4, 8)
    optimization_level: int = DEFAULT_LEVEL
    timing_cache: Path | None = None
    reproducible: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False
    plugin: bool | None = None
    workspace_bytes: int | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_batch(self.batch)
        if not 0 <= self.optimization_level <= 5:
            raise ValueError(f"[tensorrt] expected an optimization level 0..5 but got {self.optimization_level}")
        if self.reproducible and self.timing_cache is None:
            raise ValueError("[tensorrt] expected a timing cache for a reproducible build but got none; name a file")


def parse_targets(text: str) -> tuple[str, ...]:
    """`portable`, or GPU architectures such as `sm86,sm89`, as names. Raises ValueError."""
    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    if names == (PORTABLE,):
        return names
    if {"sm90", "sm90a"} & set(names):
        raise ValueError(
            f"[tensorrt] expected targets out of {', '.join(RTX_TARGETS)} but got {text!r}: TensorRT for RTX has no "
            "Hopper; build with TensorRT on such a machine (--builder tensorrt)"
        )
    if not names or not set(names) <= set(RTX_TARGETS):
        raise ValueError(
            f"[tensorrt] expected {PORTABLE}, or targets out of {', '.join(RTX_TARGETS)}, but got {text!r}"
        )
    return names


def refusals(kind: Kind, options: EngineOptions, precision: str, form: str) -> Iterator[tuple[str, str]]:
    """Each option that this builder cannot heed, by its field in EngineOptions, and why.

    `precision` (fp32, fp16 or bf16) and `form` (codebook or dense) are the graph's.
    """
    if kind == "tensorrt":
        if options.plugin and form == "dense":
            yield "plugin", "it modulates by a codebook, and a dense graph has none; take --graph codebook"
        if options.targets is not None:
            yield "targets", "TensorRT builds for the GPU of this machine; take --builder rtx, or --hardware-compatible"
        return
    for name, reason in _RTX_LACKS.items():
        if getattr(options, name):
            yield name, f"TensorRT for RTX does not take it: {reason}"
    if options.optimization_level != DEFAULT_LEVEL:
        yield "optimization_level", "TensorRT for RTX does not take it: an engine's kernels are made when it is loaded"
    if "sm75" in (options.targets or ()) and precision != "fp16":
        yield "targets", f"sm75 (Turing) runs fp16 only, and the graph is {precision}; export with --precision fp16"
