"""The training loop: batches in, steps, and what is written on the way. Run again in the same folder, it resumes."""

from __future__ import annotations

import fcntl
import itertools
import logging
import math
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import torch
from PIL import Image

from spade_core.files.whole_file import write_whole
from trainer.config import TrainConfig, from_tables, to_toml
from trainer.data.dataset import Batch, Positions, Stream, loader
from trainer.memory import keep_freed_memory
from trainer.networks import Networks, build
from trainer.output.logs import Logs
from trainer.output.report import write_report
from trainer.output.samples import Samples, choose_samples, sample_grid
from trainer.output.state import StateError, checkpoints, load_state, save_state
from trainer.output.weights import calibrated, export_weights
from trainer.perceptual import PerceptualLoss, load_perceptual
from trainer.processes import Processes, any_of, join, leave
from trainer.step import Optimisers, Statistics, learning_rate, optimisers, train_step

_log = logging.getLogger(__name__)


class TrainError(RuntimeError):
    """A run that cannot start or go on; the message holds why and what to do."""


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps taken of all, images seen, and the last row of statistics (empty before the first)."""

    step: int
    steps: int
    images: int
    images_per_step: int
    row: dict[str, float]


@dataclass(frozen=True)
class Result:
    """How a run ended: the folder, steps taken of all; not `finished` when it was stopped by a signal."""

    folder: Path
    step: int
    steps: int
    finished: bool


Listener = Callable[[Progress], None]


@dataclass
class _Run:
    """A run under way: everything that its parts need."""

    config: TrainConfig
    processes: Processes
    stream: Stream
    networks: Networks
    optimisers: Optimisers
    perceptual: PerceptualLoss | None
    folder: Path
    step: int = 0
    images: int = 0

    @property
    def images_per_step(self) -> int:
        return self.config.optim.batch * self.config.optim.accumulate * self.processes.world

    @property
    def total_images(self) -> int:
        return (self.config.optim.epochs + self.config.optim.decay_epochs) * self.stream.epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run, those taken included."""
        return self.step + max(0, self.total_images - self.images) // self.images_per_step


def train(config: TrainConfig, listener: Listener | None = None) -> Result:
    """Train, or go on training, in `run.out`, in every process that torchrun started.

    SIGINT and SIGTERM end it after the step, with a checkpoint. Raises ConfigError, DataError, StateError, TrainError.
    """
    processes = join(config.run.device)
    keep_freed_memory()
    try:
        with _exclusive(Path(config.run.out), processes), _stop_signals() as stop:
            return _train(_prepare(config, processes), stop, listener or (lambda _: None))
    finally:
        leave()


def dry_run(config: TrainConfig) -> dict[str, str]:
    """Read data, build everything and take one step; write nothing. Returns facts to show."""
    processes = join(config.run.device)
    try:
        run = _start(config, processes)
        batches = _batches(run, 0, run.images_per_step, workers=0)
        statistics = _step(run, batches)
        _refuse_diverged(_floats(statistics), 1, None)
    finally:
        leave()
    facts = {"images in an epoch": f"{run.stream.epoch}", "images a step": f"{run.images_per_step}"}
    facts["steps"] = f"{run.total_images // run.images_per_step}"
    facts |= {
        name: f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
        for name, module in run.networks.trained()
    }
    facts |= {f"first step, {name}": f"{value:.4g}" for name, value in _floats(statistics).items()}
    return facts


def export_only(config: TrainConfig) -> Path:
    """Write weights, samples and report of the newest checkpoint in `run.out`; returns the weights. As `train`."""
    if not checkpoints(Path(config.run.out) / "checkpoints"):
        raise TrainError(f"[train] expected a checkpoint in '{config.run.out}/checkpoints' but found none; train first")
    processes = join(config.run.device)
    try:
        run = _start(config, processes)
        _resume(run)
        _draw(run, choose_samples(run.stream, config), None)
        write_report(run.folder, config)
    finally:
        leave()
    return run.folder / "weights.safetensors"


def _start(config: TrainConfig, processes: Processes) -> _Run:
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    stream = Stream(config)
    networks = build(config, processes)
    perceptual = None
    if config.loss.perceptual:
        perceptual = load_perceptual(config.loss.vgg, config.loss.features)
    if perceptual is not None:
        perceptual.to(processes.device)
    adam = optimisers(networks, config.optim, processes.world)
    run = _Run(config, processes, stream, networks, adam, perceptual, Path(config.run.out))
    if run.total_images < run.images_per_step:
        raise TrainError(
            f"[train] expected at least one step but got {run.total_images} images for steps of "
            f"{run.images_per_step}; lower optim.batch or raise optim.epochs"
        )
    return run


def _prepare(config: TrainConfig, processes: Processes) -> _Run:
    run = _start(config, processes)
    _check_same(run)
    _resume(run)
    if processes.rank == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_whole(run.folder / "config.toml", lambda draft: draft.write_text(to_toml(config), encoding="utf-8"))
    return run


def _resume(run: _Run) -> None:
    found = checkpoints(run.folder / "checkpoints")
    if found:
        run.step, run.images = load_state(found[-1][1], run.networks, run.optimisers)
        if run.processes.rank == 0:
            _log.info("resuming at step %d from %s", run.step, found[-1][1])


def _check_same(run: _Run) -> None:
    """A folder's networks cannot change; other fields may, and each change is said."""
    path = run.folder / "config.toml"
    if not path.exists():
        return
    before = from_tables(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    old, new = asdict(before), asdict(run.config)
    changed = [
        f"{section}.{key}: {old[section][key]!r} -> {value!r}"
        for section, table in new.items()
        for key, value in table.items()
        if old[section][key] != value
    ]
    fixed = [c for c in changed if c.startswith(("model.", "networks.")) and not c.startswith("networks.form")]
    if fixed:
        raise StateError(
            f"[train] expected the networks that '{run.folder}' holds but got {'; '.join(fixed)}; "
            "give another run.out to start a new run"
        )
    if run.processes.rank == 0:
        for change in changed:
            _log.warning("resuming with another configuration: %s", change)


def _train(run: _Run, stop: Callable[[], bool], listener: Listener) -> Result:
    config, first = run.config, run.processes.rank == 0
    samples = choose_samples(run.stream, config) if first else None
    logs = Logs(run.folder, run.step) if first else None
    steps = run.steps
    last = run.images + (steps - run.step) * run.images_per_step
    batches = _batches(run, run.images, last, config.data.workers)
    window: list[Statistics] = []
    row: dict[str, float] = {}
    began = time.perf_counter()
    listener(Progress(run.step, steps, run.images, run.images_per_step, row))
    while run.step < steps:
        window.append(_step(run, batches))
        stopped = any_of(stop(), run.processes.world)  # a signal reaches them in different steps
        if run.step % config.run.log_steps == 0 or run.step == steps:
            row, window = _row(run, window, time.perf_counter() - began), []
            _refuse_diverged(row, run.step, run.folder)
            if logs is not None:
                logs.row(row)
            began = time.perf_counter()
        if samples is not None and (run.step % config.run.sample_steps == 0 or run.step == steps):
            _draw(run, samples, logs)
        if first and (run.step % config.run.checkpoint_steps == 0 or run.step == steps or stopped):
            _save(run)
        listener(Progress(run.step, steps, run.images, run.images_per_step, row))
        if stopped:
            break
    if logs is not None:
        logs.close()
        write_report(run.folder, config)
    return Result(run.folder, run.step, steps, run.step == steps)


def _batches(run: _Run, first: int, last: int, workers: int) -> Iterator[Batch]:
    rank, world = run.processes.rank, run.processes.world
    return loader(run.stream, run.config, Positions(first, last, rank, world, run.config.optim.batch), workers)


def _step(run: _Run, batches: Iterator[Batch]) -> Statistics:
    factor = learning_rate(run.images, run.stream.epoch, run.config.optim)
    taken = [b.to(run.processes.device) for b in itertools.islice(batches, run.config.optim.accumulate)]
    statistics = train_step(
        run.networks, run.optimisers, taken, run.perceptual, run.config, run.processes, run.step, run.images, factor
    )
    run.step += 1
    run.images += run.images_per_step
    return statistics


def _save(run: _Run) -> None:
    folder = run.folder / "checkpoints"
    save_state(folder, run.networks, run.optimisers, run.step, run.images, run.config.run.keep)


def _draw(run: _Run, samples: Samples, logs: Logs | None) -> None:
    """A sample grid, and the weights that made it."""
    config = run.config
    positions = Positions(0, config.run.calibration * config.optim.batch, 0, 1, config.optim.batch)
    batches = (b.to(run.processes.device) for b in loader(run.stream, config, positions, workers=0))
    generator = calibrated(run.networks, batches, config.networks.form)
    grid = sample_grid(samples, generator, run.networks, config)
    path = run.folder / "samples" / f"step-{run.step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(grid).save(path)
    weights = run.folder / "weights.safetensors"
    export_weights(weights, generator, run.networks.average_encoder, config, run.step, run.images)
    if logs is not None:
        logs.grid(run.step, grid)


def _row(run: _Run, window: list[Statistics], seconds: float) -> dict[str, float]:
    means = {name: sum(float(s[name]) for s in window) / len(window) for name in window[0]}
    return {
        "step": run.step,
        "images": run.images,
        **means,
        "learning_rate": run.config.optim.lr * learning_rate(run.images, run.stream.epoch, run.config.optim),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(window) * run.images_per_step / max(seconds, 1e-9), 3),
    }


def _floats(statistics: Statistics) -> dict[str, float]:
    return {name: float(value) for name, value in statistics.items()}


def _refuse_diverged(row: dict[str, float], step: int, folder: Path | None) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        hint = f"; the last checkpoint is in '{folder}/checkpoints'" if folder is not None else ""
        raise TrainError(
            f"[train] expected finite losses but got {', '.join(f'{n} = {row[n]}' for n in bad)} at step {step}: "
            f"training diverged; lower optim.lr{hint}"
        )


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM came; a second one ends the process as usual."""
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        nonlocal asked
        asked = True
        _log.warning("stopping after this step; again to stop at once")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _exclusive(folder: Path, processes: Processes) -> Iterator[None]:
    """One run a folder: the lock goes with the process, however it ends."""
    if processes.rank != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    file: IO[str]
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainError(
                f"[train] expected '{folder}' to be free but another process trains in it; give another run.out"
            ) from None
        yield
