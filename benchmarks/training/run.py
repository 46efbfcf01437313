"""A full training step (generator and discriminator, all losses), codebook form against dense, in the same run.

    python -m benchmarks.training --preset coco --labels DIR --json out.json

Each contender is a process of its own, so that its peak memory is its own. Images, starting
weights and VGG19's weights are random, since no cost depends on their values. Plans are made before a step, as the
loader's workers make them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.report import write_report
from benchmarks.training.paper import paper_step
from spade_core.config import PRESETS
from trainer.config import TrainConfig, from_tables
from trainer.data.dataset import Batch, Item, collate
from trainer.memory import give_back_freed_memory, keep_freed_memory
from trainer.networks import Networks, build, synthesize
from trainer.perceptual import VGG19, vgg_loss
from trainer.processes import Processes
from trainer.step import optimisers, train_step

PAPER, DENSE, CODEBOOK = "paper", "dense", "codebook"
CONTENDERS = (PAPER, DENSE, CODEBOOK)
"""The paper's recipe (`benchmarks.training.paper`), and the trainer in either form."""


@dataclass(frozen=True)
class Row:
    """One contender. Seconds are of one step of `batch` images; multiply-adds are of one image, counted as it ran.

    Attributes:
        cpu_seconds: of all threads, median; on a machine that others use too, with one thread, the figure to compare.
        peak_mb: most memory of the process (CPU) or of tensors (GPU) in a step, less what it held before: gradients are
            in it, weights and Adam's buffers are not.
        plan_ms: of one image, batch included, which the loader's workers do meanwhile.
    """

    name: str
    precision: str
    batch: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    cpu_seconds: float
    gmac: float
    peak_mb: float
    plan_ms: float


@dataclass(frozen=True)
class Gradients:
    """How far the generator's gradients of a form are from the dense form's in float64: |difference| / |gradient|.

    Attributes:
        all: over all parameters together.
        worst: of the worst parameter whose gradient is at least a millionth of the whole.
        worst_name: its name.
    """

    form: str
    precision: str
    all: float
    worst: float
    worst_name: str


def config_of(preset: str, form: str, precision: str, batch: int, sizes: dict[str, Any]) -> TrainConfig:
    """The trainer's configuration of one contender; `sizes` changes the model."""
    return from_tables(
        {
            "model": {"preset": preset, **sizes},
            "networks": {"form": form},
            "data": {"layout": "folder", "root": "."},  # nothing is read from it: `batches_of` makes the batches
            "optim": {"batch": batch},
            "run": {"precision": precision, "device": "auto"},
        },
        "the benchmark",
    )


def batches_of(config: TrainConfig, labels: Path | None, count: int) -> tuple[list[Batch], float]:
    """`count` batches of label maps, used again in turn, and the milliseconds of making one image's plan."""
    maps = read_maps(config.model, labels)
    random = np.random.default_rng(0)
    shape = (config.model.height, config.model.width, 3)
    items = [
        Item(symbols.astype(np.uint16), own, random.integers(0, 256, shape, np.uint8), np.zeros(256, np.float32))
        for symbols, own in zip(maps.symbols, maps.labels, strict=True)
    ]
    size = config.optim.batch
    began = time.perf_counter()
    made = [
        collate(
            [items[(i * size + j) % len(items)] for j in range(size)], config.model, config.networks.form == "codebook"
        )
        for i in range(count)
    ]
    return made, (time.perf_counter() - began) * 1e3 / (count * size)


def processes() -> Processes:
    return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def stepper(config: TrainConfig, as_paper: bool, perceptual: bool) -> Callable[[Batch], None]:
    """One whole training step on a batch."""
    alone = processes()
    networks = build(config, alone)
    sides = optimisers(networks, config.optim)
    judge = vgg_loss(VGG19()).to(alone.device) if perceptual else None

    def step(batch: Batch) -> None:
        batch = batch.to(alone.device)
        if as_paper:
            paper_step(networks, sides, batch, judge, config)
        else:
            train_step(networks, sides, [batch], judge, config, alone, step=0, images=0, factor=1.0)
        if alone.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _style(networks: Networks, batch: Batch) -> Tensor | None:
    return None if networks.encoder is None else batch.noise


def measure(name: str, spec: dict[str, Any]) -> Row:
    """Run one contender: a step that counts, one for the memory, then the timed ones. In a process of its own."""
    form = "codebook" if name == CODEBOOK else "dense"
    config = config_of(spec["preset"], form, spec["precision"], spec["batch"], spec["sizes"])
    torch.set_num_threads(spec["threads"])
    keep_freed_memory()  # as `spade train` does
    labels = None if spec["labels"] is None else Path(spec["labels"])
    batches, plan_ms = batches_of(config, labels, max(1, 8 // spec["batch"]))
    step = stepper(config, name == PAPER, spec["perceptual"])
    with FlopCounterMode(display=False) as counter:
        step(batches[0])  # the first: it allocates Adam's buffers too
    gmac = counter.get_total_flops() / 2e9 / spec["batch"]
    before = _reset_peak()
    step(batches[0])
    peak = _peak() - before
    seconds, cpu = [], []
    for i in range(spec["repeats"]):
        began, cpu_began = time.perf_counter(), time.process_time()
        step(batches[(i + 1) % len(batches)])
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    return Row(
        name, spec["precision"], spec["batch"], statistics.median(seconds), min(seconds), max(seconds),
        statistics.median(cpu), gmac, peak, plan_ms,
    )  # fmt: skip


def _reset_peak() -> float:
    """MB held now, tensors on a GPU, else the process; the peak counts from here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    give_back_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak resident size starts anew
    return _process_kb("VmRSS") / 1e3


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return _process_kb("VmHWM") / 1e3


def _process_kb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1.024 for line in lines if line.startswith(field))


def gradients(spec: dict[str, Any]) -> list[Gradients]:
    """The generator's gradients of both forms, in float32 and the run's precision, against the dense form in float64.

    Same weights, map and power iteration; the loss is the mean square of the image, which every pixel is in.
    """
    torch.set_num_threads(spec["threads"])
    labels = None if spec["labels"] is None else Path(spec["labels"])
    config = config_of(spec["preset"], "codebook", "fp32", spec["batch"], spec["sizes"])
    alone = processes()
    networks = build(config, alone)
    batch = batches_of(config, labels, 1)[0][0].to(alone.device)
    buffers = {name: buffer.clone() for name, buffer in networks.generator.named_buffers()}
    reference: dict[str, Tensor] = {}
    found = []
    wanted = [("dense", "fp64"), ("dense", "fp32"), ("codebook", "fp32")]
    if spec["precision"] == "bf16":
        wanted += [("dense", "bf16"), ("codebook", "bf16")]
    for form, precision in wanted:
        with torch.no_grad():
            for name, buffer in networks.generator.named_buffers():
                buffer.copy_(buffers[name])
        networks.generator.zero_grad(set_to_none=True)
        networks.generator.to(torch.float64 if precision == "fp64" else torch.float32)
        with torch.autocast(alone.device.type, torch.bfloat16, enabled=precision == "bf16"):
            image = synthesize(networks.generator, batch, _style(networks, batch), form)
        image.to(torch.promote_types(image.dtype, torch.float32)).square().mean().backward()  # type: ignore[no-untyped-call]
        now = {name: p.grad.double() for name, p in networks.generator.named_parameters() if p.grad is not None}
        if not reference:
            reference = {name: g.clone() for name, g in now.items()}
            continue
        found.append(compare(form, precision, now, reference))
    return found


def compare(form: str, precision: str, now: dict[str, Tensor], reference: dict[str, Tensor]) -> Gradients:
    """Norms of the differences. Raises RuntimeError where a parameter has a gradient in one form only."""
    if now.keys() != reference.keys():
        raise RuntimeError(
            f"[benchmark] expected gradients of the same parameters but got {now.keys() ^ reference.keys()}"
        )
    size = {name: float(g.norm()) for name, g in reference.items()}
    error = {name: float((now[name] - g).norm()) for name, g in reference.items()}
    total = sum(s**2 for s in size.values()) ** 0.5
    shares = {name: error[name] / size[name] for name in size if size[name] > 1e-6 * total}
    worst = max(shares, key=lambda name: shares[name])
    return Gradients(form, precision, sum(e**2 for e in error.values()) ** 0.5 / total, shares[worst], worst)


def worker(spec: dict[str, Any]) -> None:
    """What a child process does: one contender, or the gradients; the result goes to spec["out"]."""
    if spec["name"] == "gradients":
        result: Any = [asdict(one) for one in gradients(spec)]
    else:
        result = asdict(measure(spec["name"], spec))
    Path(spec["out"]).write_text(json.dumps(result))


def run(spec: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(name, result) of each child, one after the other; a child that fails ends the run."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            out = Path(folder, "result.json")
            task = json.dumps({**spec, "name": name, "out": str(out)})
            done = subprocess.run([sys.executable, "-m", "benchmarks.training", "--worker", task], check=False)
            if done.returncode:
                sys.exit(f"error: '{name}' ended with status {done.returncode}; its reason is above")
            yield name, json.loads(out.read_text())


def table(rows: list[Row], found: list[Gradients]) -> list[Table]:
    """What the terminal shows: the contenders with their ratio to the codebook form, then the gradients."""
    ours = next((row for row in rows if row.name == CODEBOOK), None)
    steps = Table("step", "precision", box=None)
    for heading in ("batch", "seconds", "min..max", "ratio", "CPU s", "ratio", "GMAC an image", "peak MB"):
        steps.add_column(heading, justify="right")
    for row in rows:
        steps.add_row(
            row.name, row.precision, str(row.batch), f"{row.seconds_median:.2f}",
            f"{row.seconds_min:.2f}..{row.seconds_max:.2f}",
            f"{row.seconds_median / ours.seconds_median:.2f}x" if ours else "",
            f"{row.cpu_seconds:.2f}", f"{row.cpu_seconds / ours.cpu_seconds:.2f}x" if ours else "",
            f"{row.gmac:.0f}", f"{row.peak_mb:.0f}",
        )  # fmt: skip
    differences = Table("gradients against dense fp64", "precision", "all", "worst parameter", box=None)
    for one in found:
        differences.add_row(one.form, one.precision, f"{one.all:.1e}", f"{one.worst:.1e} {one.worst_name}")
    return [steps, differences]


@click.command()
@click.option(
    "--preset",
    type=click.Choice([name for name, config in PRESETS.items() if not config.style]),
    default="coco",
    show_default=True,
    help="Of the generator; one without a style, as the paper's step here is.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images in a step.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of a step.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed steps of each.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each; default: all cores.")
@click.option("--no-vgg", is_flag=True, help="Leave the perceptual loss out.")
@click.option("--size", type=click.IntRange(32), help="Height and width instead of the preset's.")
@click.option("--nf", type=click.IntRange(2), help="Width instead of the preset's.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
@click.option("--worker", "worker_spec", hidden=True, help="One contender, as the parent runs it.")
def main(
    preset: str, labels: str | None, batch: int, precision: str, repeats: int, threads: int | None, no_vgg: bool,
    size: int | None, nf: int | None, json_path: Path | None, worker_spec: str | None,
) -> None:  # fmt: skip
    """Time a training step in both forms on the same maps, and compare memory and gradients."""
    if worker_spec:
        worker(json.loads(worker_spec))
        return
    console = Console()
    sizes: dict[str, Any] = {} if size is None else {"height": size, "width": size}
    sizes |= {} if nf is None else {"nf": nf}
    spec = {
        "preset": preset, "labels": labels, "batch": batch, "precision": precision, "repeats": repeats,
        "threads": threads or len(os.sched_getaffinity(0)), "perceptual": not no_vgg, "sizes": sizes,
    }  # fmt: skip
    rows: list[Row] = []
    found: list[Gradients] = []
    for name, result in run(spec, (*CONTENDERS, "gradients")):
        console.print(f"measured {name}")
        if name == "gradients":
            found = [Gradients(**one) for one in result]
        else:
            rows.append(Row(**result))
        if json_path:  # after each, so that an interrupted run keeps what it measured
            report = {
                "spec": spec | {"labels": labels_name(labels)},
                "rows": [asdict(row) for row in rows],
                "gradients": [asdict(one) for one in found],
            }
            write_report(json_path, report)
    for one in table(rows, found):
        console.print(one)
