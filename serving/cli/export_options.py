"""The options of `spade export`, in the groups that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from serving.cli.options import COUNT, OUT_FILE, OUT_FOLDER, THREADS, option

TARGETS = ("onnx", "tensorrt", "triton")


def _targets(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split(",") if name)
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        raise click.BadParameter(f"expected names out of {', '.join(TARGETS)} but got {value!r}")
    return names


def _batch(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int, int]:
    from export.tensorrt.profiles import ProfileError, check_batch

    try:
        least, usual, largest = (int(part) for part in value.split(","))
        return check_batch((least, usual, largest))
    except ProfileError as error:
        raise click.BadParameter(str(error)) from None
    except ValueError:
        raise click.BadParameter(f"expected MIN,OPT,MAX, three whole numbers, but got {value!r}") from None


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        height, width = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"expected HxW, for instance 256x512, but got {value!r}") from None
    return height, width


@dataclass(frozen=True)
class Graph:
    """The ONNX graph and the comparison with PyTorch."""

    form: str = option(
        "--graph", type=click.Choice(["dense", "codebook"]), default="dense", show_default=True,
        help="dense: label maps in. codebook: the plan of the label maps in, several times less to compute.",
    )  # fmt: skip
    image: str = option(
        "--image", type=click.Choice(["uint8", "float"]), default="uint8", show_default=True,
        help="uint8: bytes [N, H, W, 3]. float: float32 [N, 3, H, W] in -1..1.",
    )  # fmt: skip
    size: tuple[int, int] | None = option(
        "--size", metavar="HxW", callback=_size, help="Image size.  [default: the model's]"
    )
    maps: Path | None = option(
        "--maps", type=OUT_FOLDER, help="Compare on these label maps (a folder, or one holding label/ and inst/)."
    )
    verify: bool = option(
        "--verify/--no-verify", default=True, show_default=True, help="Compare ONNX runtimes with PyTorch."
    )
    verify_maps: int = option(
        "--verify-maps", type=COUNT, default=2, show_default=True, help="How many maps to compare on."
    )
    int8: bool = option(
        "--int8", is_flag=True,
        help="Experiment: also write spade.int8.onnx, main convs in INT8, calibrated on the maps.",
    )  # fmt: skip


def _target(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from export.tensorrt.options import parse_targets

    try:
        return None if value is None else parse_targets(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@dataclass(frozen=True)
class Build:
    """How a TensorRT engine is built. The fields but `builder` and `workspace_mb` are arguments of `EngineOptions`."""

    builder: str = option(
        "--builder", type=click.Choice(["auto", "tensorrt", "rtx"]), default="auto", show_default=True,
        help="tensorrt: for the GPU of this machine. rtx: TensorRT for RTX, for GeForce and RTX GPUs, built without a "
        "GPU. auto: tensorrt where it can build, else rtx.",
    )  # fmt: skip
    targets: tuple[str, ...] | None = option(
        "--target", callback=_target, metavar="portable|sm86,sm89,..",
        help="GPUs that an engine of --builder rtx runs on.  [default: portable, every one from Ampere on but Hopper]",
    )  # fmt: skip
    batch: tuple[int, int, int] = option(
        "--batch", default="1,4,8", show_default=True, callback=_batch, help="MIN,OPT,MAX label maps an engine takes."
    )
    optimization_level: int = option(
        "--optimization-level",
        type=click.IntRange(0, 5),
        default=3,
        show_default=True,
        help="TensorRT's builder optimization level.",
    )
    timing_cache: Path | None = option("--timing-cache", type=OUT_FILE, help="Keep TensorRT's timings in this file.")
    workspace_mb: int | None = option(
        "--workspace-mb", type=COUNT, help="Most scratch memory of an engine.  [default: all]"
    )
    reproducible: bool = option(
        "--reproducible", is_flag=True, help="Build from the timing cache only, the same engine every time."
    )
    version_compatible: bool = option(
        "--version-compatible", is_flag=True, help="The engine runs on later versions of TensorRT."
    )
    hardware_compatible: bool = option(
        "--hardware-compatible", is_flag=True, help="The engine runs on every GPU from Ampere on."
    )
    refit: bool = option("--refit", is_flag=True, help="The engine's weights can be replaced.")
    strip_weights: bool = option(
        "--strip-weights",
        is_flag=True,
        help="Leave the weights out of the engine, which then reads them from spade.onnx.",
    )
    plugin: bool | None = option(
        "--plugin/--no-plugin",
        default=None,
        help="Run the modulate step of the codebook graph by our kernel.  [default: with --builder tensorrt]",
    )


@dataclass(frozen=True)
class Publication:
    """Settings of a published version."""

    keep: int = option("--keep", type=COUNT, default=5, show_default=True, help="Versions left in the repository.")
    threads: int | None = option(
        "--threads", type=THREADS, help="Threads of a served checkpoint.  [default: one per core]"
    )


@dataclass(frozen=True)
class Files:
    """The results, and where they are written."""

    out: Path = option("--out", type=OUT_FOLDER, required=True, help="Folder of the files.")
    targets: tuple[str, ...] = option(
        "--to", default="onnx", show_default=True, callback=_targets,
        help="What to make, comma separated: onnx, tensorrt (an engine), triton (a version of a repository).",
    )  # fmt: skip
    publish: Path | None = option(
        "--publish", type=OUT_FOLDER, help="The model repository; needed by, and implies, --to triton."
    )
    given_precision: str | None = option(
        "--precision", type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
        help="Precision of weights and activations. An engine keeps the precision of its graph; int8 is for a "
        "published checkpoint.  [default: fp32 for a graph; for a published checkpoint, the fastest of the machine "
        "that serves it]",
    )  # fmt: skip

    @property
    def makes(self) -> tuple[str, ...]:
        """The targets; a repository implies `triton`."""
        implied = self.publish is not None and "triton" not in self.targets
        return (*self.targets, "triton") if implied else self.targets

    @property
    def precision(self) -> str:
        """The precision of the graph."""
        return self.given_precision or "fp32"

    @property
    def served_precision(self) -> str:
        """The precision of a published checkpoint."""
        return self.given_precision or "auto"
