"""`spade export`: a checkpoint to an ONNX file, a TensorRT engine, a version of a model repository."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.cli.console import Command, bars, interruptible, note, say, stderr, stdout
from serving.cli.export_options import Build, Files, Graph, Publication
from serving.cli.options import Queue, Weights, given, options

if TYPE_CHECKING:
    from export.tensorrt.library import Library
    from export.tensorrt.options import EngineOptions
    from serving.triton.repository import Version
    from spade_core.files.checkpoints import Checkpoint


@click.command(
    cls=Command,
    interrupted="files that were written are whole",
    short_help="Make ONNX files, engines, served versions.",
)
@options(Weights, "model")
@options(Files, "files")
@options(Graph, "graph")
@options(Build, "build")
@options(Publication, "publication")
@options(Queue, "queue")
@click.pass_context
def export(
    context: click.Context, model: Weights, files: Files, graph: Graph, build: Build, publication: Publication,
    queue: Queue,
) -> None:  # fmt: skip
    """Turn a checkpoint into an ONNX file, a TensorRT engine, a version of a Triton model repository.

    The ONNX file is checked by onnx.checker, against the operators that TensorRT knows, and against PyTorch's images by
    running the file in ONNX Runtime and OpenVINO.

    \b
    spade export --weights coco.safetensors --out coco/ --graph codebook --precision fp16
    spade export --weights coco.safetensors --out coco/ --to onnx,tensorrt,triton --precision fp16 --publish repo/
    spade export --weights coco.safetensors --out coco/ --to triton --publish repo/

    Without tensorrt, the published version is the checkpoint itself, for the engines of this machine. A server of the
    repository (`spade serve --repository`) takes the new version at once; a refused one leaves the old one serving.

    Exit status: 0 done, 1 a step failed or its check did (the reason is shown), 2 wrong usage.
    """
    _refuse_ignored(context, files.makes)
    _refuse_contradictions(files, graph)
    library = _library(files, graph, build) if "tensorrt" in files.makes else None
    from serving.engines.choose import load_checkpoint

    if "triton" in files.makes and "tensorrt" not in files.makes and files.precision == "fp16":
        note("note: a checkpoint at fp16 is served on an NVIDIA GPU only")
    if files.precision == "int8":
        note("note: a checkpoint at int8 is served on processors with AMX only")
    checkpoint = load_checkpoint(model.file, model.architecture)
    facts = {**checkpoint.metadata, **_source(model)}
    if {"onnx", "tensorrt"} & set(files.makes):
        facts = interruptible(partial(_make_onnx, checkpoint, files, graph, facts))
    if library is not None:
        facts = _make_engine(library, files.out, build)
    if files.publish is not None:
        if "tensorrt" in files.makes:
            config = checkpoint.config
            if graph.size is not None:
                config = replace(config, height=graph.size[0], width=graph.size[1])
            version = _publish_engine(config, files, facts, publication, queue)
        else:
            version = _publish_checkpoint(checkpoint, model, files, facts, publication, queue)
        say(f"{files.publish}: version {version.number} is live")


def _refuse_ignored(context: click.Context, targets: tuple[str, ...]) -> None:
    """An option that would do nothing is an error: whoever gave the option believes that it does something."""
    of_engine = "an engine is published, not the checkpoint; --batch is the engine's"
    rules = [
        (not {"onnx", "tensorrt"} & set(targets), given(context, Graph), "no graph is made; add onnx to --to"),
        ("tensorrt" not in targets, given(context, Build), "no engine is built; add tensorrt to --to"),
        (
            "triton" not in targets, given(context, Publication, Queue),
            "no version is published; add --publish REPOSITORY",
        ),
        (
            "tensorrt" in targets,
            [name for name in given(context, Publication, Queue) if name in ("--threads", "--max-batch")], of_engine,
        ),
    ]  # fmt: skip
    for applies, ignored, reason in rules:
        if applies and ignored:
            raise click.UsageError(f"{', '.join(ignored)}: {reason}")


def _refuse_contradictions(files: Files, graph: Graph) -> None:
    if "triton" in files.makes and files.publish is None:
        raise click.UsageError("--to triton: name the model repository with --publish")
    if files.precision == "int8" and files.makes != ("triton",):
        raise click.UsageError(
            "--precision int8: a published checkpoint has it, but neither a graph nor an engine; give --to triton alone"
        )
    if graph.int8 and files.precision != "fp32":
        raise click.UsageError(f"--int8: it starts from a float32 graph, not --precision {files.precision}")
    if {"tensorrt", "triton"} <= set(files.makes) and graph.image != "uint8":
        raise click.UsageError("--image float: an engine that is served answers with uint8 images")


def _library(files: Files, graph: Graph, build: Build) -> Library:
    """The library that builds the engine. Before the work: refuses options, and says that a library is missing."""
    from export.tensorrt.library import choose
    from export.tensorrt.options import refusals

    chosen = choose("auto") if build.builder == "auto" else None
    kind: Any = build.builder if chosen is None else chosen.kind
    for field, reason in refusals(kind, _engine_options(build), files.precision, graph.form):
        name = "target" if field == "targets" else field.replace("_", "-")
        raise click.UsageError(f"--{name}: {reason}")
    if "triton" in files.makes and graph.form == "dense" and kind == "tensorrt":
        if build.strip_weights:
            raise click.UsageError("--strip-weights: Triton's own backend cannot put them back; take --graph codebook")
        if build.batch[0] != 1:
            raise click.UsageError(
                f"--batch {build.batch[0]},..: Triton's own backend sends single maps too; start at 1"
            )
    return chosen or choose(build.builder)


def _engine_options(build: Build) -> EngineOptions:
    from export.tensorrt.options import EngineOptions

    arguments = asdict(build)
    del arguments["builder"]
    megabytes = arguments.pop("workspace_mb")
    return EngineOptions(**arguments, workspace_bytes=None if megabytes is None else megabytes << 20)


def _source(model: Weights) -> dict[str, str]:
    if model.file is None:
        return {"source": f"seeded {model.architecture}"}
    return {"source": model.file.name, "source_sha256": hashlib.sha256(model.file.read_bytes()).hexdigest()}


def _make_onnx(checkpoint: Checkpoint, files: Files, graph: Graph, metadata: dict[str, str]) -> dict[str, Any]:
    from export.pipeline import export_int8, export_onnx, verify_onnx
    from export.verify import table
    from spade_core.files.manifest import write_manifest

    path, quantised = files.out / "spade.onnx", files.out / "spade.int8.onnx"
    chosen: dict[str, Any] = {"size": graph.size, "maps": graph.maps, "count": graph.verify_maps}
    form: Any = graph.form
    precision: Any = files.precision
    image: Any = graph.image
    with _status() as report:
        facts = export_onnx(
            checkpoint.generator, path, form=form, precision=precision, image=image, size=graph.size,
            metadata=metadata, report=report,
        )  # fmt: skip
        made = _with_weights(path)
        if graph.int8:
            export_int8(checkpoint.generator, path, quantised, report=report, **chosen)
            made += _with_weights(quantised)
        rows: list[Any] = []
        for file in (path, *([quantised] if graph.int8 else [])):
            if graph.verify:
                rows += verify_onnx(checkpoint.generator, file, report=report, **chosen)
    if rows:
        stdout().print(table(rows))
    write_manifest(files.out, facts, [file.name for file in made])
    say(f"{path}: {_megabytes(path)}, {graph.form}, {files.precision}, image {graph.image}")
    return dict(facts)


def _make_engine(library: Library, out: Path, build: Build) -> dict[str, Any]:
    from rich.progress import TimeElapsedColumn

    from export.tensorrt.builder import build_engine
    from spade_core.files.manifest import write_manifest

    path = out / "spade.plan"
    with bars(TimeElapsedColumn()) as shown:
        tasks: dict[str, Any] = {}

        def progress(phase: str, done: int, of: int) -> bool:
            if phase not in tasks:
                tasks[phase] = shown.add_task(phase, total=of)
            shown.update(tasks[phase], completed=done, total=of, visible=done < of)
            return True

        options = _engine_options(build)
        facts = interruptible(lambda: build_engine(library, out / "spade.onnx", path, options, progress))
    made = (*_with_weights(out / "spade.onnx"), path, path.with_suffix(".layers.json"))
    write_manifest(out, facts, [file.name for file in made])
    targets = "for the GPU of this machine" if facts["targets"] is None else ",".join(facts["targets"])
    say(f"{path}: {_megabytes(path)}, {library.title}, {targets}, {_scratch(facts)}, {facts['state']}")
    say(f"{path.with_suffix('.layers.json')}: {facts['layers']} layers")
    return facts


def _publish_engine(
    config: Any, files: Files, facts: dict[str, Any], publication: Publication, queue: Queue
) -> Version:
    from serving.triton.model_config import ModelOptions
    from serving.triton.repository import publish_engine

    assert files.publish is not None
    running = ModelOptions(**{**asdict(queue), "max_batch": facts["options"]["batch"][2]})
    return publish_engine(files.publish, files.out / "spade.plan", running, config, facts, publication.keep)


def _publish_checkpoint(
    checkpoint: Checkpoint, model: Weights, files: Files, facts: dict[str, Any], publication: Publication, queue: Queue
) -> Version:
    from serving.triton.model_config import ModelOptions
    from serving.triton.repository import publish_checkpoint
    from spade_core.files.checkpoints import save

    assert files.publish is not None
    with tempfile.TemporaryDirectory() as folder:
        weights = model.file
        if weights is None:
            weights = Path(folder, "seeded.safetensors")
            save(weights, checkpoint.generator, checkpoint.encoder, checkpoint.metadata)
        precision = files.served_precision
        running = ModelOptions(weights, precision=precision, threads=publication.threads, **asdict(queue))
        facts = {**facts, "precision": precision}
        return publish_checkpoint(files.publish, running, checkpoint.config, facts, publication.keep)


def _scratch(facts: dict[str, Any]) -> str:
    """The scratch memory of an engine, for the line that announces it."""
    return "scratch unknown" if facts["scratch_bytes"] is None else f"{facts['scratch_bytes'] / 1e9:.2f} GB scratch"


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    with stderr().status("starting") as status:
        yield status.update


def _with_weights(path: Path) -> list[Path]:
    """An ONNX file and the weights beside it."""
    return [path, *path.parent.glob(f"{path.name}.*.data")]


def _megabytes(path: Path) -> str:
    return f"{sum(file.stat().st_size for file in _with_weights(path)) / 1e6:.1f} MB"
