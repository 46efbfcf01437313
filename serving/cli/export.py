"""`spade export` and `spade repository`: thin layers over `export/` and `serving.triton.repository`."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from serving.cli.model_options import QUEUE, given, queue_options, weights_options

_stdout, _stderr = Console(highlight=False), Console(stderr=True, highlight=False)

_FOLDER = click.Path(file_okay=False, path_type=Path)
_EXTRA = ("onnx", "onnxscript", "onnxruntime", "openvino")
TARGETS = ("onnx", "tensorrt", "triton")
# What has an effect on one of the results only.
_OF_GRAPH = ("graph", "image", "size", "maps", "verify", "verify_maps", "int8")
_OF_ENGINE = ("batch", "optimization_level", "timing_cache", "workspace_mb", "reproducible", "version_compatible",
              "hardware_compatible", "refit", "strip_weights", "plugin")  # fmt: skip
_OF_VERSION = ("keep", "threads", *QUEUE)
_OF_CHECKPOINT = ("threads", "max_batch")


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


@click.command()
@weights_options
@click.option("--out", type=_FOLDER, required=True, help="Folder of the files.")
@click.option(
    "--to",
    "targets",
    default="onnx",
    show_default=True,
    callback=_targets,
    help="What to make, comma separated: onnx, tensorrt (needs an NVIDIA GPU), triton (a version of a repository).",
)
@click.option(
    "--graph",
    type=click.Choice(["dense", "codebook"]),
    default="dense",
    show_default=True,
    help="dense: label maps in. codebook: the plan of the label maps in, several times less to compute.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of weights and activations; it is in the graph, engines do not change it.",
)
@click.option(
    "--image",
    type=click.Choice(["uint8", "float"]),
    default="uint8",
    show_default=True,
    help="uint8: bytes [N, H, W, 3]. float: float32 [N, 3, H, W] in -1..1.",
)
@click.option(
    "--batch", default="1,4,8", show_default=True, callback=_batch, help="MIN,OPT,MAX label maps an engine takes."
)
@click.option("--size", metavar="HxW", callback=_size, help="Image size.  [default: the model's]")
@click.option("--maps", type=_FOLDER, help="Compare on these label maps (a folder, or one holding label/ and inst/).")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare ONNX runtimes with PyTorch.")
@click.option(
    "--verify-maps", type=click.IntRange(1), default=2, show_default=True, help="How many maps to compare on."
)
@click.option(
    "--int8", is_flag=True, help="Experiment: also write spade.int8.onnx, main convs in INT8, calibrated on the maps."
)
@click.option("--optimization-level", type=click.IntRange(0, 5), default=3, show_default=True, help="Of TensorRT.")
@click.option("--timing-cache", type=click.Path(dir_okay=False, path_type=Path), help="Keep TensorRT's timings here.")
@click.option("--workspace-mb", type=click.IntRange(1), help="Most scratch memory of an engine.  [default: all]")
@click.option("--reproducible", is_flag=True, help="Build from the timing cache only, the same engine every time.")
@click.option("--version-compatible", is_flag=True, help="The engine runs on later versions of TensorRT.")
@click.option("--hardware-compatible", is_flag=True, help="The engine runs on every GPU from Ampere on.")
@click.option("--refit", is_flag=True, help="The engine's weights can be replaced.")
@click.option("--strip-weights", is_flag=True, help="Leave the weights out of the engine; spade.onnx brings them back.")
@click.option(
    "--plugin/--no-plugin", default=True, show_default=True, help="Modulate step of the codebook graph: our kernel."
)
@click.option("--publish", type=_FOLDER, help="The model repository; needed by, and implies, --to triton.")
@click.option("--keep", type=click.IntRange(1), default=5, show_default=True, help="Versions left in the repository.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a served checkpoint.  [default: one per core]")
@queue_options
@click.pass_context
def export(
    context: click.Context, weights: Path | None, preset: str, out: Path, targets: tuple[str, ...], graph: str,
    precision: str, image: str, batch: tuple[int, int, int], size: tuple[int, int] | None, maps: Path | None,
    verify: bool, verify_maps: int, int8: bool, optimization_level: int, timing_cache: Path | None,
    workspace_mb: int | None, reproducible: bool, version_compatible: bool, hardware_compatible: bool, refit: bool,
    strip_weights: bool, plugin: bool, publish: Path | None, keep: int, threads: int | None, queue: dict[str, Any],
) -> None:  # fmt: skip
    """Turn a checkpoint into an ONNX file, a TensorRT engine, a version of a Triton model repository.

    Every step is checked against the one before: the ONNX file by onnx.checker, by the operators TensorRT knows, and by
    running it in ONNX Runtime and OpenVINO against PyTorch.

    \b
    spade export --weights coco.safetensors --out coco/ --graph codebook --precision fp16
    spade export --weights coco.safetensors --out coco/ --to onnx,tensorrt,triton --precision fp16 --publish repo/
    spade export --weights coco.safetensors --out coco/ --to triton --publish repo/

    Without tensorrt, the published version is the checkpoint itself, for the engines of this machine. A server of the
    repository (`spade serve --repository`) takes the new version at once; a refused one leaves the old one serving.

    Exit status: 0 done, 1 a step failed or its check did (the reason is shown), 2 wrong usage.
    """
    from serving.engines.choose import load_checkpoint

    if publish is not None and "triton" not in targets:
        targets = (*targets, "triton")
    if "triton" in targets and publish is None:
        raise click.UsageError("--to triton: name the model repository with --publish")
    _refuse_ignored(context, targets)
    if publish is not None and "tensorrt" not in targets and precision == "fp16":
        _stderr.print("note: a checkpoint at fp16 is served on an NVIDIA GPU only", soft_wrap=True)
    if int8 and precision != "fp32":
        raise click.UsageError(f"--int8: it starts from a float32 graph, not --precision {precision}")
    if "tensorrt" in targets and "triton" in targets and image != "uint8":
        raise click.UsageError("--image float: an engine that is served answers with uint8 images")
    if "tensorrt" in targets and "triton" in targets and graph == "dense":
        if strip_weights:
            raise click.UsageError("--strip-weights: Triton's own backend cannot put them back; take --graph codebook")
        if batch[0] != 1:
            raise click.UsageError(f"--batch {batch[0]},..: Triton's own backend sends single maps too; start at 1")
    with _failures_as_messages():
        if "tensorrt" in targets:
            import export.tensorrt.builder  # noqa: F401 - where it is not installed, say so before the work
        checkpoint = load_checkpoint(weights, preset)
        source = {"source": weights.name if weights else f"seeded {preset}"}
        if weights is not None:
            source["source_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        facts: dict[str, Any] = {**checkpoint.metadata, **source}
        if {"onnx", "tensorrt"} & set(targets):
            facts = _make_onnx(checkpoint, out, graph, precision, image, size, maps, verify, verify_maps, int8, facts)
        if "tensorrt" in targets:
            from export.tensorrt.builder import EngineOptions

            options = EngineOptions(
                batch, optimization_level, timing_cache, reproducible, version_compatible, hardware_compatible, refit,
                strip_weights, plugin, None if workspace_mb is None else workspace_mb << 20,
            )  # fmt: skip
            facts = _make_engine(out, options)
        if publish is not None:
            if "tensorrt" in targets:
                _publish_engine(checkpoint.config, out, facts, publish, keep, size, queue)
            else:
                facts = {**facts, "precision": precision}
                _publish_checkpoint(checkpoint, weights, facts, publish, keep, {**queue, "threads": threads})


def _refuse_ignored(context: click.Context, targets: tuple[str, ...]) -> None:
    """An option that would do nothing is an error: whoever gave it believes that it does something."""
    rules = [
        (not {"onnx", "tensorrt"} & set(targets), _OF_GRAPH, "no graph is made; add onnx to --to"),
        ("tensorrt" not in targets, _OF_ENGINE, "no engine is built; add tensorrt to --to"),
        ("triton" not in targets, _OF_VERSION, "no version is published; add --publish REPOSITORY"),
        ("tensorrt" in targets, _OF_CHECKPOINT, "an engine is published, not the checkpoint; --batch is the engine's"),
    ]
    for applies, names, reason in rules:
        if applies and (ignored := given(context, names)):
            raise click.UsageError(f"{', '.join(ignored)}: {reason}")


def _make_onnx(
    checkpoint: Any, out: Path, graph: Any, precision: Any, image: Any, size: tuple[int, int] | None,
    maps: Path | None, verify: bool, count: int, int8: bool, metadata: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    from export.pipeline import export_int8, export_onnx, verify_onnx
    from export.verify import table
    from spade_core.files.manifest import write_manifest

    path, quantised = out / "spade.onnx", out / "spade.int8.onnx"
    chosen: dict[str, Any] = {"size": size, "maps": maps, "count": count}
    with _status() as report:
        facts = export_onnx(
            checkpoint.generator, path, form=graph, precision=precision, image=image, size=size, metadata=metadata,
            report=report,
        )  # fmt: skip
        made = _files(path)
        if int8:
            export_int8(checkpoint.generator, path, quantised, report=report, **chosen)
            made += _files(quantised)
        rows: list[Any] = []
        for file in (path, *([quantised] if int8 else [])):
            if verify:
                rows += verify_onnx(checkpoint.generator, file, report=report, **chosen)
    if rows:
        _stdout.print(table(rows))
    write_manifest(out, facts, [file.name for file in made])
    _stdout.print(f"{path}: {_megabytes(path)}, {graph}, {precision}, image {image}", markup=False, soft_wrap=True)
    return dict(facts)


def _make_engine(out: Path, options: Any) -> dict[str, Any]:
    from export.tensorrt.builder import build_engine
    from spade_core.files.manifest import write_manifest

    path = out / "spade.plan"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(phase: str, done: int, of: int) -> bool:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=of)
            bars.update(tasks[phase], completed=done, total=of, visible=done < of)
            return True

        facts = build_engine(out / "spade.onnx", path, options, progress)
    made = (*_files(out / "spade.onnx"), path, path.with_suffix(".layers.json"))
    write_manifest(out, facts, [file.name for file in made])
    _stdout.print(
        f"{path}: {_megabytes(path)}, {facts['layers']} layers, see spade.layers.json", markup=False, soft_wrap=True
    )
    return facts


def _publish_engine(
    config: Any, out: Path, facts: dict[str, Any], root: Path, keep: int, size: tuple[int, int] | None,
    queue: dict[str, Any],
) -> None:  # fmt: skip
    from serving.triton.model_config import ModelOptions
    from serving.triton.repository import publish_engine

    if size is not None:
        config = replace(config, height=size[0], width=size[1])
    options = ModelOptions(**{**queue, "max_batch": facts["options"]["batch"][2]})
    version = publish_engine(root, out / "spade.plan", options, config, facts, keep)
    _stdout.print(f"{root}: version {version.number} is live", markup=False, soft_wrap=True)


def _publish_checkpoint(
    checkpoint: Any, weights: Path | None, facts: dict[str, Any], root: Path, keep: int, running: dict[str, Any]
) -> None:
    from serving.triton.model_config import ModelOptions
    from serving.triton.repository import publish_checkpoint
    from spade_core.files.checkpoints import save

    with tempfile.TemporaryDirectory() as folder:
        if weights is None:
            weights = Path(folder, "seeded.safetensors")
            save(weights, checkpoint.generator, checkpoint.encoder, checkpoint.metadata)
        options = ModelOptions(weights, precision=facts["precision"], **running)
        version = publish_checkpoint(root, options, checkpoint.config, facts, keep)
    _stdout.print(f"{root}: version {version.number} is live", markup=False, soft_wrap=True)


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="REPOSITORY")
@click.option("--roll-back", is_flag=True, help="Make the newest good version before the live one live.")
@click.option("--version", "number", type=click.IntRange(1), help="Make this version live.")
def repository(root: Path, roll_back: bool, number: int | None) -> None:
    """Show the versions of a model repository, verified against their hashes, or make an earlier one live.

    \b
    spade repository repo/
    spade repository repo/ --roll-back
    spade repository repo/ --version 3

    A running server of the repository loads the version before the old one goes; no request is lost.

    Exit status: 0 done, 1 a version is damaged or refused (the reason is shown), 2 wrong usage.
    """
    from serving.triton.repository import roll_back as run
    from serving.triton.repository import versions

    with _failures_as_messages():
        if roll_back or number is not None:
            _stdout.print(f"{root}: version {run(root, number).number} is live", markup=False, soft_wrap=True)
            return
        found = versions(root)
    table = Table("version", "", "source", "precision", "state")
    for version in found:
        facts = version.facts
        table.add_row(
            str(version.number), "live" if version.live else "", escape(str(facts.get("source", ""))),
            escape(str(facts.get("precision", ""))),
            "DAMAGED" if version.fault else "REFUSED" if version.refused else "whole",
        )  # fmt: skip
    _stdout.print(table)
    faults = [version.fault for version in found if version.fault]
    faults += [
        f"[publish] a server refused version {version.number}: {version.refused}; `spade repository {root} --version "
        f"{version.number}` tries again" for version in found if version.refused
    ]  # fmt: skip
    for fault in faults:
        _stderr.print(fault, markup=False, soft_wrap=True)
    if faults:
        sys.exit(1)


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    with _stderr.status("starting") as status:
        yield status.update


def _files(path: Path) -> list[Path]:
    """An ONNX file and the weights beside it."""
    return [path, *path.parent.glob(f"{path.name}.*.data")]


def _megabytes(path: Path) -> str:
    return f"{sum(file.stat().st_size for file in _files(path)) / 1e6:.1f} MB"


@contextlib.contextmanager
def _failures_as_messages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        _stderr.print(
            f"error: [export] expected the package {error.name} but it is not installed; "
            "`pip install 'spade-serve[export]'`",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if isinstance(error, click.exceptions.Exit):
            raise
        _stderr.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _stderr.print("interrupted: files that were written are whole")
        sys.exit(130)
