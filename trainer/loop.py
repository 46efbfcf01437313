"""The training loop: batches in, steps, and the files written on the way. A run in a folder that holds one resumes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from spade_core.models.form import AnyGenerator
from trainer.config import TrainConfig
from trainer.data.dataset import Batch, Positions, loader
from trainer.exclusive import TrainError, exclusive, stop_signals
from trainer.memory import keep_freed_memory
from trainer.output.logs import Logs, read_rows
from trainer.output.report import write_report
from trainer.output.samples import Samples, choose_samples, sample_grid
from trainer.output.state import checkpoints
from trainer.output.weights import calibrated, export_weights
from trainer.precision import choose_precision
from trainer.processes import any_of, join, leave, means_over
from trainer.run import Run, resume, start, start_or_resume
from trainer.step import train_step
from trainer.training import Moment, Statistics, learning_rate
from trainer.validation import Validation, is_best


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps taken out of all, images seen, and the last row of statistics (empty before the first)."""

    step: int
    steps: int
    images: int
    images_per_step: int
    row: dict[str, float]


@dataclass(frozen=True)
class Result:
    """How a run ended: its folder and the steps taken out of all; `finished` is false where a signal stopped it."""

    folder: Path
    step: int
    steps: int
    finished: bool


Listener = Callable[[Progress], None]


def train(config: TrainConfig, listener: Listener | None = None) -> Result:
    """Train in `run.out`, or resume there, in every process that torchrun started.

    SIGINT and SIGTERM end the run after its step, with a checkpoint. Raises ConfigError, DataError, LossError,
    StateError, TrainError.
    """
    processes = join(config.run.device)
    keep_freed_memory()
    try:
        with exclusive(Path(config.run.out), processes), stop_signals() as stop:
            return _train(start_or_resume(config, processes), stop, listener or (lambda _: None))
    finally:
        leave()


def dry_run(config: TrainConfig) -> dict[str, str]:
    """Read data, build everything and take one step; write nothing. Returns facts to show. Raises as `train`."""
    processes = join(config.run.device)
    try:
        run = start(config, processes)
        own = {name: float(v) for name, v in _step(run, run.batches(run.images_per_step, workers=0)).items()}
        statistics = means_over(own, processes.world)
        _refuse_diverged(statistics, 1, None)
    finally:
        leave()
    facts = {"images in an epoch": f"{run.stream.epoch}", "images a step": f"{run.images_per_step}"}
    facts["steps"] = f"{run.total_images // run.images_per_step}"
    facts["precision"] = choose_precision(config.run.precision, processes.device.type).precision
    facts |= {
        name: f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
        for name, module in run.training.networks.trained()
    }
    return facts | {f"first step, {name}": f"{value:.4g}" for name, value in statistics.items()}


def export_only(config: TrainConfig) -> Path:
    """Write weights, samples and report of the newest checkpoint; returns the weights' file. Raises as `train`."""
    if not checkpoints(Path(config.run.out) / "checkpoints"):
        raise TrainError(f"[train] expected a checkpoint in '{config.run.out}/checkpoints' but found none; train first")
    processes = join(config.run.device)
    try:
        run = start(config, processes)
        resume(run)
        _draw(run, _drawing_generator(run), choose_samples(run.stream, config), None)
        write_report(run.folder, config)
    finally:
        leave()
    return run.folder / "weights.safetensors"


def _train(run: Run, stop: Callable[[], bool], listener: Listener) -> Result:
    config, first = run.config, run.processes.rank == 0
    samples = choose_samples(run.stream, config) if first else None
    validation = Validation(config, run.processes.device) if first and config.validation.steps else None
    logs = Logs(run.folder, run.step, config) if first else None
    steps = run.steps
    batches = run.batches(run.images + (steps - run.step) * run.images_per_step, config.data.workers)
    window: list[Statistics] = []
    row: dict[str, float] = {}
    began = time.perf_counter()
    listener(Progress(run.step, steps, run.images, run.images_per_step, row))
    while run.step < steps:
        window.append(_step(run, batches))
        stopped = any_of(stop(), run.processes.world)  # a signal reaches the processes in different steps
        if run.step % config.run.log_steps == 0 or run.step == steps:
            row, window = _row(run, window, time.perf_counter() - began), []
            _refuse_diverged(row, run.step, run.folder)
            if logs is not None:
                logs.row(row)
            began = time.perf_counter()
        if samples is not None and logs is not None:
            paused = time.perf_counter()
            _show(run, samples, validation, logs)
            began += time.perf_counter() - paused  # rows time steps alone
        if first and (run.step % config.run.checkpoint_steps == 0 or run.step == steps or stopped):
            run.save()
        listener(Progress(run.step, steps, run.images, run.images_per_step, row))
        if stopped:
            break
    if logs is not None:
        logs.close()
        write_report(run.folder, config)
    return Result(run.folder, run.step, steps, run.step == steps)


def _step(run: Run, batches: Iterator[Batch]) -> Statistics:
    factor = learning_rate(run.images, run.stream.epoch, run.config.optim)
    taken = [b.to(run.processes.device) for b in itertools.islice(batches, run.config.optim.accumulate)]
    statistics = train_step(run.training, taken, Moment(run.step, run.images, factor))
    run.step += 1
    run.images += run.images_per_step
    return statistics


def _show(run: Run, samples: Samples, validation: Validation | None, logs: Logs) -> None:
    """Draw samples and validate where the configuration wants them after this step, and at the end."""
    config, last = run.config, run.step == run.steps
    drawing = last or run.step % config.run.sample_steps == 0
    validating = validation is not None and (last or run.step % config.validation.steps == 0)
    if not drawing and not validating:
        return
    generator = _drawing_generator(run)
    if drawing:
        _draw(run, generator, samples, logs)
    if validation is not None and validating:
        logs.scores({"step": run.step, "images": run.images, **validation.scores(generator)})
        if is_best(read_rows(logs.validation), config.validation.best):
            _export(run, generator, "best.safetensors")


def _drawing_generator(run: Run) -> AnyGenerator:
    """The averaged generator, its batch-norm statistics measured."""
    config = run.config
    positions = Positions(0, config.run.calibration * config.optim.batch, 0, 1, config.optim.batch)
    batches = (b.to(run.processes.device) for b in loader(run.stream, config, positions, workers=0))
    return calibrated(run.training.networks, batches, config.networks.form)


def _export(run: Run, generator: AnyGenerator, name: str) -> None:
    encoder = run.training.networks.average_encoder
    export_weights(run.folder / name, generator, encoder, run.config, run.step, run.images, run.stream.colours)


def _draw(run: Run, generator: AnyGenerator, samples: Samples, logs: Logs | None) -> None:
    """Write a sample grid, and the weights that drew it."""
    config, networks = run.config, run.training.networks
    grid = sample_grid(samples, generator, networks, config)
    path = run.folder / "samples" / f"step-{run.step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(grid).save(path)
    _export(run, generator, "weights.safetensors")
    if logs is not None:
        logs.grid(run.step, grid)


def _row(run: Run, window: list[Statistics], seconds: float) -> dict[str, float]:
    """The row of statistics of the steps in `window`, which took `seconds`: means over the steps and all processes.

    A loss that some steps leave out is a mean over the others. The learning rate is the last step's.
    """
    found: dict[str, list[float]] = {}
    for statistics in window:
        for name, value in statistics.items():
            found.setdefault(name, []).append(float(value))
    own = {name: sum(values) / len(values) for name, values in found.items()}
    means = means_over(own, run.processes.world)
    before = run.images - run.images_per_step
    return {
        "step": run.step,
        "images": run.images,
        **means,
        "learning_rate": run.config.optim.lr * learning_rate(before, run.stream.epoch, run.config.optim),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(window) * run.images_per_step / max(seconds, 1e-9), 3),
    }


def _refuse_diverged(row: dict[str, float], step: int, folder: Path | None) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        hint = f"; the last checkpoint is in '{folder}/checkpoints'" if folder is not None else ""
        raise TrainError(
            f"[train] expected finite losses but got {', '.join(f'{n} = {row[n]}' for n in bad)} at step {step}: "
            f"training diverged; lower optim.lr{hint}"
        )
