"""The error of every exported file: every preset at full size, both graphs, each precision, in every runtime.

`spade bench export`, which is also `python -m benchmarks.model.exported`.

Every file passes the checks of `spade export` (onnx.checker, shape inference, TensorRT's operators) and then runs on
label maps, against PyTorch's float32 dense form. Presets have seeded weights; `demo` has the trained weights that ship.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from benchmarks.common.maps import labels_name
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.output import Drawn, Output, finish
from benchmarks.report.report import Report
from benchmarks.report.screen import Screen
from benchmarks.report.views import View, number
from export.onnx import DTYPES, ExportOptions, Form, export_graph
from export.verify import Row, check_file, compare
from kernels.constants import DONT_CARE
from serving.cli.console import Command
from serving.cli.options import COUNT, FILE, FOLDER, option, options
from serving.engines.choose import load_checkpoint
from spade_core.config import DEMO_WEIGHTS, PRESETS, GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.maps.samples import Maps, read_maps
from spade_core.models.generator import Generator

FORMS: tuple[Form, ...] = get_args(Form)
COCO = PRESETS["coco"]  # the label maps of --labels hold COCO-Stuff's ids


def maps_for(config: GeneratorConfig, labels: Path | None, count: int) -> Maps:
    """Label maps for any preset: COCO-Stuff maps, their ids taken modulo the preset's classes, or drawn maps."""
    if labels is None:
        return read_maps(config, None, count)
    as_coco = replace(config, label_nc=COCO.label_nc, dont_care=True, instance_edges=True)
    found = read_maps(as_coco, labels, count)
    folded_ids = found.labels % np.uint16(config.label_nc)  # 256 classes are one more than uint8 counts
    ids = np.where(found.labels == DONT_CARE, DONT_CARE if config.dont_care else 0, folded_ids)
    folded, instances = ids.astype(np.uint8), found.instances if config.instance_edges else None
    return Maps(folded, instances, prepare(folded, instances, config).astype(np.int32), found.style)


def measure(
    generator: Generator, maps: Maps, forms: Sequence[Form], precisions: Sequence[Any], folder: Path
) -> tuple[list[Row], dict[str, float]]:
    """Export, check and run every form in every precision. Also the size of each file, MB by `form precision`."""
    rows, megabytes = [], {}
    for form in forms:
        for precision in precisions:
            path = folder / f"{form}-{precision}.onnx"
            export_graph(generator, path, form, ExportOptions(precision=precision))
            check_file(path)
            rows += compare(path, generator, maps.labels, maps.instances, maps.style)
            megabytes[f"{form} {precision}"] = path.stat().st_size / 1e6
            path.unlink()
    return rows, megabytes


def report_row(model: str, row: Row, megabytes: float) -> dict[str, Any]:
    """A row as the report holds it. Errors that were not measured are None, since JSON has no NaN."""
    found = asdict(row)
    for name in ("max_error", "psnr_db"):
        found[name] = found[name] if isfinite(found[name]) else None
    measured = [] if found["max_error"] is None else [found["max_error"]]
    case = f"{model} {row.form} {row.precision}"
    return {"name": row.runtime, "case": case, "model": model, "megabytes": megabytes, **found,
            "measures": {"max_error": measured}}  # fmt: skip


def views(report: Report) -> list[View]:
    """One table. Errors are of images in -1..1."""
    columns = ("model", "graph", "precision", "MB", "runtime", "max error", "PSNR dB", "verdict")
    cells = [
        (
            row["model"], row["form"], row["precision"], f"{row['megabytes']:.1f}", row["runtime"],
            number(row["max_error"], ".1e"), number(row["psnr_db"], ".1f"), row["verdict"],
        )
        for row in report.rows
    ]  # fmt: skip
    return [View("exported files against PyTorch's float32 dense form", columns, cells, words=3)]


@dataclass(frozen=True)
class Files:
    """Which files to export, and the maps to run them on."""

    weights: Path | None = option("--weights", type=FILE, help="Checkpoint to export in place of the presets.")
    presets: tuple[str, ...] = option(
        "--preset", type=click.Choice(list(PRESETS)), multiple=True,
        help="Presets on seeded weights, demo on the weights that ship; may be repeated.  [default: all]",
    )  # fmt: skip
    forms: tuple[Form, ...] = option(
        "--form", type=click.Choice(FORMS), multiple=True, help="May be repeated.  [default: both]"
    )
    precisions: tuple[str, ...] = option(
        "--precision", type=click.Choice(list(DTYPES)), multiple=True, help="May be repeated.  [default: all]"
    )
    labels: Path | None = option(
        "--labels", type=FOLDER,
        help="Folder of COCO-Stuff maps, or one holding label/ and inst/; ids are folded into a preset's classes. "
        " [default: drawn maps]",
    )  # fmt: skip
    maps: int = option("--maps", type=COUNT, default=2, show_default=True, help="Label maps.")


@click.command(cls=Command, short_help="Errors of every exported file.")
@options(Files, "files")
@options(Output, "output")
def export(files: Files, output: Output) -> None:
    """Export files and compare each in every runtime with PyTorch: max error and PSNR.

    \b
    spade bench export --preset demo
    spade bench export --weights coco.safetensors --labels maps/ --precision fp16

    Exit status: 0 every file that runs is right, 1 one is wrong, or worse than --max-regression, 2 wrong usage.
    """
    if files.weights is not None and files.presets:
        raise click.UsageError("--preset: a checkpoint has its own architecture; give the checkpoint or --preset")
    old = output.read_old("export")
    report, noise = Report("export", {"labels": labels_name(files.labels), "maps": files.maps}), NoiseMeter()
    sources = _sources(files)
    with Screen(len(sources)) as screen:
        for name, weights in sources:
            screen.step(name)
            checkpoint = load_checkpoint(weights, name)
            maps = maps_for(checkpoint.config, files.labels, files.maps)
            with tempfile.TemporaryDirectory() as folder:
                found, megabytes = measure(
                    checkpoint.generator, maps, files.forms or FORMS, files.precisions or tuple(DTYPES), Path(folder)
                )
            report.rows += [report_row(name, row, megabytes[f"{row.form} {row.precision}"]) for row in found]
            screen.show(views(report))
    report.noise = noise.finish()
    finish(report, Drawn(views, lambda _report: ()), output, old)
    if any(row["verdict"] == "WRONG" for row in report.rows):
        sys.exit(1)


def _sources(files: Files) -> list[tuple[str, Path | None]]:
    """(name, checkpoint or None for seeded weights) of every model."""
    if files.weights is not None:
        return [(files.weights.name, files.weights)]
    return [(name, DEMO_WEIGHTS if name == "demo" else None) for name in files.presets or PRESETS]


if __name__ == "__main__":
    export()
