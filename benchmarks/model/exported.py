"""The error of every exported file: every preset at full size, both graphs, each precision, in every runtime.

    python -m benchmarks.model.exported --labels DIR --json out.json

Every file passes the checks of `spade export` (onnx.checker, shape inference, TensorRT's operators) and then runs on
label maps, against PyTorch's float32 dense form. Presets have seeded weights; `demo` has the trained weights that ship.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.common.maps import labels_name
from benchmarks.common.options import json_option, labels_option
from benchmarks.common.report import write_report
from export.onnx import DTYPES, ExportOptions, Form, export_graph
from export.verify import Row, check_file, compare
from kernels.constants import DONT_CARE
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


def table(rows: Sequence[tuple[str, Row, float]]) -> Table:
    """A table of (preset, row, MB). Errors are of images in -1..1."""
    out = Table("preset", "graph", "precision", "MB", "runtime", "max error", "PSNR dB", "verdict")
    for preset, row, megabytes in rows:
        numbers = (f"{row.max_error:.1e}", f"{row.psnr_db:.1f}") if row.psnr_db == row.psnr_db else ("", "")
        out.add_row(
            preset, row.form, row.precision, f"{megabytes:.1f}", row.runtime, *numbers, escape(row.verdict)
        )  # fmt: skip
    return out


@click.command()
@click.option(
    "--preset", "presets", type=click.Choice(list(PRESETS)), multiple=True, help="May be repeated.  [default: all]"
)
@click.option("--form", "forms", type=click.Choice(FORMS), multiple=True, help="May be repeated.  [default: both]")
@click.option("--precision", "precisions", type=click.Choice(list(DTYPES)), multiple=True,
              help="May be repeated.  [default: all]")  # fmt: skip
@labels_option("COCO-Stuff maps")
@click.option("--maps", "count", type=click.IntRange(1), default=2, show_default=True, help="Label maps.")
@json_option()
def main(
    presets: tuple[str, ...], forms: tuple[Form, ...], precisions: tuple[str, ...], labels: Path | None, count: int,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Max error and PSNR of every exported file against PyTorch.

    Exit status: 0 every file that runs is right, 1 one is wrong, 2 wrong usage.
    """
    rows: list[tuple[str, Row, float]] = []
    for name in presets or PRESETS:
        checkpoint = load_checkpoint(DEMO_WEIGHTS if name == "demo" else None, name)
        maps = maps_for(checkpoint.config, labels, count)
        with tempfile.TemporaryDirectory() as folder:
            found, megabytes = measure(
                checkpoint.generator, maps, forms or FORMS, precisions or tuple(DTYPES), Path(folder)
            )
        rows += [(name, row, megabytes[f"{row.form} {row.precision}"]) for row in found]
    Console().print(table(rows))
    if json_path:
        report = {"labels": labels_name(labels), "maps": count,
                  "rows": [{"preset": preset, "megabytes": mb, **asdict(row)} for preset, row, mb in rows]}  # fmt: skip
        write_report(json_path, report)
    if any(row.verdict == "WRONG" for _, row, _ in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
