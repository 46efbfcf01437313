"""Time, memory and multiply-adds of one contender's training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training.paper import paper_step
from benchmarks.training.setting import Setting, alone, batches
from trainer.config import TrainConfig
from trainer.data.dataset import Batch
from trainer.memory import give_back_freed_memory, keep_freed_memory
from trainer.networks import build
from trainer.perceptual import VGG19, vgg_loss
from trainer.step import train_step
from trainer.training import Moment, Training, optimisers

PAPER, DENSE, CODEBOOK = "paper", "dense", "codebook"
CONTENDERS = (PAPER, DENSE, CODEBOOK)
"""The paper's recipe (`benchmarks.training.paper`), and the trainer in either form."""


@dataclass(frozen=True)
class Row:
    """One contender. Seconds are for one step of `batch` images; multiply-adds are counted in a step, for one image.

    Attributes:
        cpu_seconds: over all threads, median. Compare this figure where a machine runs other work too, with one thread.
        peak_mb: most memory of the process (CPU) or of tensors (GPU) in a step, minus the memory before the step. So
            gradients count; weights and Adam's buffers do not.
        plan_ms: to plan and batch one image; in training the loader's processes do this meanwhile.
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


def measure(name: str, setting: Setting) -> Row:
    """Run one contender: a step that counts, a step for the memory, then the timed steps. In a process of its own."""
    config = setting.config("codebook" if name == CODEBOOK else "dense")
    torch.set_num_threads(setting.threads)
    keep_freed_memory()  # as `spade train` does
    made, plan_ms = batches(config, setting.labels, max(1, 8 // setting.batch))
    step = _stepper(config, name == PAPER, setting.perceptual)
    with FlopCounterMode(display=False) as counter:
        step(made[0])  # the first step also allocates Adam's buffers
    gmac = counter.get_total_flops() / 2e9 / setting.batch
    before = _reset_peak()
    step(made[0])
    peak = _peak() - before
    seconds, cpu = [], []
    for i in range(setting.repeats):
        began, cpu_began = time.perf_counter(), time.process_time()
        step(made[(i + 1) % len(made)])
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    return Row(
        name, setting.precision, setting.batch, statistics.median(seconds), min(seconds), max(seconds),
        statistics.median(cpu), gmac, peak, plan_ms,
    )  # fmt: skip


def _stepper(config: TrainConfig, as_paper: bool, perceptual: bool) -> Callable[[Batch], None]:
    """One whole training step on a batch."""
    processes = alone()
    networks = build(config, processes)
    judge = vgg_loss(VGG19()).to(processes.device) if perceptual else None
    training = Training(networks, optimisers(networks, config.optim), judge, config, processes)

    def step(batch: Batch) -> None:
        batch = batch.to(processes.device)
        if as_paper:
            paper_step(training, batch)
        else:
            train_step(training, [batch], Moment())
        if processes.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _reset_peak() -> float:
    """Start a new peak; returns the MB held now by tensors on a GPU, or by the process."""
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
