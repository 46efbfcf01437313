"""The first half of `spade export`: weights to an ONNX file that is checked and compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from export.feeds import codebook_feed, dense_feed
from export.graphs import ImageKind
from export.int8 import quantise
from export.onnx import ExportOptions, Form, Precision, export_graph
from export.verify import Row, check_file, compare, refuse_wrong
from spade_core.config import GeneratorConfig
from spade_core.maps.samples import read_maps
from spade_core.models.generator import Generator

Report = Callable[[str], None]


def export_onnx(
    generator: Generator,
    path: Path,
    *,
    form: Form,
    precision: Precision,
    image: ImageKind,
    size: tuple[int, int] | None,
    metadata: Mapping[str, str],
    report: Report,
) -> dict[str, str]:
    """Write the graph and check the file with `check_file`. Returns the properties of the model.

    Raises ExportError, VerifyError.
    """
    report(f"tracing the {form} graph in {precision}")
    export_graph(generator, path, form, ExportOptions(precision, image, size, metadata))
    report("checking the graph")
    return check_file(path)


def verify_onnx(
    generator: Generator, path: Path, *, size: tuple[int, int] | None, maps: Path | None, count: int, report: Report
) -> Sequence[Row]:
    """Compare the file with PyTorch's float32 dense form on up to `count` label maps, of the folder `maps` or drawn.

    Raises VerifyError, with the errors in the message, when a runtime computes another image.
    """
    read = read_maps(_sized(generator, size), maps, count)
    report(f"comparing with PyTorch on {len(read.labels)} label maps")
    rows = compare(path, generator, read.labels, read.instances, read.style)
    refuse_wrong(path, rows)
    return rows


def export_int8(
    generator: Generator,
    path: Path,
    out: Path,
    *,
    size: tuple[int, int] | None,
    maps: Path | None,
    count: int,
    report: Report,
) -> None:
    """Write the float32 file `path` to `out` with its main convs in INT8, calibrated on up to `count` label maps.

    Raises ExportError, VerifyError.
    """
    config = _sized(generator, size)
    read = read_maps(config, maps, count)
    report(f"calibrating INT8 on {len(read.labels)} label maps")
    make_feed = dense_feed if check_file(path)["form"] == "dense" else codebook_feed
    quantise(path, out, (make_feed(*read.one(i), config) for i in range(len(read.labels))))
    check_file(out)


def _sized(generator: Generator, size: tuple[int, int] | None) -> GeneratorConfig:
    config = generator.config
    return config if size is None else replace(config, height=size[0], width=size[1])
