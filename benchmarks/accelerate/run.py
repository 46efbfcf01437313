"""Networks of MONAI before and after `accelerate`, in turn, on one label map and on a phantom of ellipsoids.

    python -m benchmarks.accelerate --labels DIR --json out.json

Needs MONAI: `pip install '.[monai]'` in the checkout.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accelerate.networks import Case, cases
from benchmarks.common.console import console
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option
from benchmarks.common.report import write_report
from spade_core import accelerate, label_map
from spade_core.config import preset


@dataclass(frozen=True)
class Row:
    """One network. Seconds are medians of a call; `gmac` counts products of convs and matrices; `steps` share a map.

    `error` is the largest difference of a result over its largest value.
    """

    network: str
    size: str
    steps: int
    seconds_plain: float
    seconds_accelerated: float
    ratio: float
    gmac_plain: float
    gmac_accelerated: float
    error: float


@click.command()
@labels_option()
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True, help="Turns of each network.")
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="Diffusion steps on one map.")
@click.option("--volume", type=click.IntRange(16), default=64, show_default=True, help="Voxels a side of the phantom.")
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch; all by default.")
@json_option()
def main(labels: Path | None, turns: int, steps: int, volume: int, threads: int | None, json_path: Path | None) -> None:
    """Time MONAI's SPADE networks before and after `accelerate`."""
    torch.manual_seed(0)
    if threads is not None:
        torch.set_num_threads(threads)
    config = preset("coco")
    maps = read_maps(config, labels, 1)
    chosen = torch.from_numpy(maps.labels[:1].astype("int64"))
    chosen[chosen == 255] = config.label_nc
    rows = [measure(case, turns) for case in track(cases(chosen, config.classes, volume, steps), "networks")]
    console().print(table_of(rows))
    if json_path is not None:
        report = {"labels": labels_name(labels), "threads": torch.get_num_threads(), "turns": turns}
        write_report(json_path, report | {"rows": [asdict(row) for row in rows]})


def table_of(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    table = Table("network", "size", "steps", "plain ms", "accelerated ms", "ratio", "GMAC", "accelerated", "error")
    for row in rows:
        table.add_row(
            row.network, row.size, str(row.steps), f"{1e3 * row.seconds_plain:.0f}",
            f"{1e3 * row.seconds_accelerated:.0f}", f"{row.ratio:.2f}", f"{row.gmac_plain:.2f}",
            f"{row.gmac_accelerated:.2f}", f"{row.error:.1e}",
        )  # fmt: skip
    return table


@torch.no_grad()
def measure(case: Case, turns: int) -> Row:
    """Time a network and an accelerated copy in turn; every turn of the copy starts without a plan."""
    for parameter in case.model.parameters():
        if not parameter.any():  # MONAI's last convs start at zero, where every network draws the same
            nn.init.normal_(parameter, std=0.02)
    plain = case.model.eval()
    fast = accelerate(copy.deepcopy(plain))
    expected, macs_plain = _counted(case, plain)
    out, macs_fast = _counted(case, fast)
    plain_s, fast_s = [], []
    for _ in range(turns):
        plain_s.append(_seconds(case, plain, 1))
        case.segmap.add_(0)  # a changed map: plans and codebooks are made anew
        with label_map(fast, case.segmap) if case.steps > 1 else nullcontext():
            fast_s.append(_seconds(case, fast, case.steps))
    error = float((out - expected).abs().max() / expected.abs().max())
    seconds = statistics.median(plain_s), statistics.median(fast_s)
    size = "x".join(str(side) for side in case.segmap.shape[2:])
    return Row(
        case.name, size, case.steps, *seconds, statistics.median([a / b for a, b in zip(plain_s, fast_s, strict=True)]),
        macs_plain, macs_fast, error,
    )  # fmt: skip


def _seconds(case: Case, model: nn.Module, steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        case.call(model)
    return (time.perf_counter() - began) / steps


def _counted(case: Case, model: nn.Module) -> tuple[Tensor, float]:
    """The result of a second call, and its multiply-adds in billions; codebooks are kept where there are steps."""
    kept: AbstractContextManager[None] = nullcontext()
    if case.steps > 1 and model is not case.model:
        kept = label_map(model, case.segmap)
    with kept:
        case.call(model)
        with FlopCounterMode(display=False) as counter:
            out = case.call(model)
    return out, counter.get_total_flops() / 2e9
