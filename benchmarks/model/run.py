"""The whole generator against its peers on the same weights and label maps.

    python -m benchmarks.model --preset coco --labels DIR --peers torch-fp32,openvino-bf16 --json out.json

All engines and peers are loaded at once and take turns, batch by batch, so that a ratio compares neighbours in time:
clock and load of the machine change more within minutes than most changes of an engine do. All start from labels and
instances. The times of PyTorch and of our engines include the checks of a request; the times of other peers do not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common.errors import image_error
from benchmarks.common.loaded_process import LoadedProcess
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, preset_option, weights_option
from benchmarks.common.report import write_report
from benchmarks.model.worker import Setting, describe, load_turn
from kernels.isa import IsaError
from serving.engines.cpu.engine import choose_isa_of
from spade_core.types import Array

PEERS = ("torch-fp32", "torch-bf16", "onnxruntime", "openvino-fp32", "openvino-bf16")
REFERENCE = "torch-fp32"
OURS = ("cpu-fp32", "cpu-bf16", "cpu-int8", "torch-codebook-fp32", "torch-codebook-bf16")


@dataclass
class Result:
    """The results of an engine at one batch size: seconds of each timed call, and images of each batch of maps."""

    seconds: list[float] = field(default_factory=list)
    images: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One engine at one batch size. Times are seconds of a batch; errors are against PyTorch's float32 dense form."""

    name: str
    engine: str
    form: str
    precision: str
    batch: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    max_error: float
    psnr_db: float


def row_of(name: str, batch: int, result: Result, reference: Result) -> Row:
    """The row of one engine, with errors against the reference's images of the same batches."""
    engine, form, precision = describe(name)
    max_error, psnr_db = image_error(np.concatenate(result.images), np.concatenate(reference.images))
    return Row(
        name, engine, form, precision, batch, float(np.median(result.seconds)), min(result.seconds),
        max(result.seconds), max_error, psnr_db,
    )  # fmt: skip


def table(rows: list[Row], batch: int) -> Table:
    """The rows of one batch size. `x` is the time of a row over the time of our fastest engine."""
    best = min((r.seconds_median for r in rows if r.batch == batch and r.name in OURS), default=float("nan"))
    out = Table(
        "engine", "form", "precision", "ms median", "ms min..max", "x", "max error", "PSNR dB", title=f"batch {batch}"
    )
    for row in sorted((r for r in rows if r.batch == batch), key=lambda r: r.seconds_median):
        out.add_row(
            row.engine, row.form, row.precision, f"{row.seconds_median * 1e3:.0f}",
            f"{row.seconds_min * 1e3:.0f}..{row.seconds_max * 1e3:.0f}", f"{row.seconds_median / best:.2f}",
            f"{row.max_error:.1e}", f"{row.psnr_db:.1f}",
        )  # fmt: skip
    return out


def lacking(names: tuple[str, ...]) -> dict[str, str]:
    """The engines and peers among `names` that this processor cannot run at speed, each with the reason."""
    found = {name: _why_slow(*describe(name)) for name in names}
    return {name: why for name, why in found.items() if why}


def _why_slow(engine: str, form: str, precision: str) -> str:
    """Why this processor cannot run an engine or peer at speed; empty if it can."""
    if engine == "cpu":
        try:
            choose_isa_of(precision)
        except IsaError as error:
            return str(error)
    if engine == "torch" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (
            f"expected a processor on which oneDNN multiplies in bf16 (AVX-512 or newer) but this one has "
            f"{torch.backends.cpu.get_cpu_capability()}, where PyTorch's bf16 convs take minutes ({form} form)"
        )
    if engine == "openvino" and precision == "bf16":
        import openvino

        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:
            return (
                f"expected a processor with BF16 among OpenVINO's capabilities but got {', '.join(capabilities)}, "
                "where OpenVINO computes in float32 whatever precision it is asked for"
            )
    return ""


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name for name in value.split(",") if name)
    unknown = [name for name in names if name not in PEERS + OURS]
    if unknown:
        raise click.BadParameter(f"expected names out of {', '.join(PEERS + OURS)} but got {', '.join(unknown)}")
    return names


@click.command()
@preset_option("coco")
@weights_option()
@labels_option()
@click.option("--maps", default=8, show_default=True, type=click.IntRange(1), help="Label maps, if there are as many.")
@click.option(
    "--engines",
    callback=_names,
    help=f"Our engines, by name.  [default: {','.join(OURS)}, where the processor runs them]",
)
@click.option(
    "--peers", callback=_names, help=f"Peers, by name.  [default: {','.join(PEERS)}, where the processor runs them]"
)
@click.option("--batches", default="1,8", show_default=True, help="Batch sizes.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Timed calls per batch of maps.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine; default: all cores.")
@json_option()
def main(
    engines: tuple[str, ...] | None, peers: tuple[str, ...] | None, batches: str, repeats: int, threads: int | None,
    json_path: Path | None, **shared: Any,
) -> None:  # fmt: skip
    """Time the generator and its peers on the same weights and label maps, and show the ratio and the error of each."""
    console = Console()
    names = _chosen(engines, peers, console)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        setting = Setting(**shared, onnx=Path(folder, "dense.onnx"), threads=threads or len(os.sched_getaffinity(0)))
        turns = list(_turns(len(read_maps(setting.config, setting.labels, setting.maps).labels), batches))
        if {"onnxruntime", "openvino-fp32", "openvino-bf16"} & set(names):
            from export.onnx import export_graph
            from serving.engines.choose import load_checkpoint

            console.print(f"exporting the dense graph of {setting.preset_name} to ONNX")
            export_graph(load_checkpoint(setting.weights, setting.preset_name).generator, setting.onnx, "dense")
        loading = track(names, "loading", console=console)
        workers = [processes.enter_context(closing(LoadedProcess(name, load_turn, name, setting))) for name in loading]
        results = {(name, batch): Result() for batch, _ in turns for name in names}
        for batch, first in track(turns, "measuring", console=console):
            for worker in workers:
                seconds, images = worker.call(first, batch, repeats)
                results[worker.name, batch].seconds += seconds
                results[worker.name, batch].images.append(images)
            rows = [row_of(*key, of, results[REFERENCE, key[1]]) for key, of in results.items() if of.seconds]
            if json_path:  # after every turn, so that an interrupted run keeps what it measured
                labels = labels_name(setting.labels)
                write_report(json_path, {"preset": setting.preset_name, "labels": labels, "rows": [*map(asdict, rows)]})
    for batch in dict.fromkeys(batch for batch, _ in turns):
        console.print(table(rows, batch))


def _chosen(engines: tuple[str, ...] | None, peers: tuple[str, ...] | None, console: Console) -> tuple[str, ...]:
    """The reference, then the engines and peers that are asked for. None asks for all that this processor runs."""
    by_default = {*(PEERS if peers is None else ()), *(OURS if engines is None else ())}
    left_out = lacking(tuple(name for name in PEERS + OURS if name in by_default))
    for name, why in left_out.items():
        console.print(f"{name} is left out: {why}", markup=False)
    asked = (PEERS if peers is None else peers) + (OURS if engines is None else engines)
    return tuple(dict.fromkeys((REFERENCE, *(name for name in asked if name not in left_out))))


def _turns(maps: int, batches: str) -> Iterator[tuple[int, int]]:
    """(batch size, its first map) of every turn; maps that fill no whole batch are left out."""
    for size in (int(text) for text in batches.split(",")):
        for first in range(0, maps - size + 1, size):
            yield size, first
