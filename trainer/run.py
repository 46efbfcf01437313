"""A run under way: how it starts, how it resumes, and where it is."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from spade_core.files.whole_file import write_whole
from trainer.config import TrainConfig
from trainer.config_file import from_tables, to_toml
from trainer.data.dataset import Batch, Positions, Stream, loader
from trainer.exclusive import TrainError
from trainer.networks import build
from trainer.output.state import StateError, checkpoints, load_state, save_state
from trainer.perceptual import load_perceptual
from trainer.precision import choose_precision
from trainer.processes import Processes, said_once
from trainer.training import Training, optimisers

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """A run: its training, its stream of images, its folder, and the steps taken and images seen so far."""

    training: Training
    stream: Stream
    folder: Path
    step: int = 0
    images: int = 0

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return self.training.config

    @property
    def processes(self) -> Processes:
        """This process among all."""
        return self.training.processes

    @property
    def images_per_step(self) -> int:
        """Images of one step, over all passes and processes."""
        return self.config.optim.batch * self.config.optim.accumulate * self.processes.world

    @property
    def total_images(self) -> int:
        """Images of the whole run."""
        return (self.config.optim.epochs + self.config.optim.decay_epochs) * self.stream.epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run, including the steps taken so far."""
        return self.step + max(0, self.total_images - self.images) // self.images_per_step

    def batches(self, last: int, workers: int) -> Iterator[Batch]:
        """This process's batches, from the images seen so far up to image `last`."""
        rank, world = self.processes.rank, self.processes.world
        positions = Positions(self.images, last, rank, world, self.config.optim.batch)
        return loader(self.stream, self.config, positions, workers)

    def save(self) -> None:
        """Write a checkpoint."""
        training, run, folder = self.training, self.config.run, self.folder / "checkpoints"
        save_state(
            folder, training.networks, training.optimisers, self.step, self.images, run.keep, run.checkpoint_part_mb
        )


def start(config: TrainConfig, processes: Processes) -> Run:
    """A run at its beginning; nothing is written. Raises DataError, LossError, TrainError."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    with said_once(processes):
        precision = choose_precision(config.run.precision, processes.device.type)
        _log.info("%s", precision)
        if precision.warning:
            _log.warning("%s", precision.warning)
        stream = Stream(config)
        perceptual = load_perceptual(config.loss.vgg, config.loss.features) if config.loss.perceptual else None
    networks = build(config, processes)
    if perceptual is not None:
        perceptual.to(processes.device)
    adam = optimisers(networks, config.optim, processes.world)
    run = Run(Training(networks, adam, perceptual, config, processes), stream, Path(config.run.out))
    if run.total_images < run.images_per_step:
        raise TrainError(
            f"[train] expected at least one step but got {run.total_images} images for steps of "
            f"{run.images_per_step}; lower optim.batch or raise optim.epochs"
        )
    return run


def start_or_resume(config: TrainConfig, processes: Processes) -> Run:
    """The run of `run.out`: at its newest checkpoint, or new; the first process writes `config.toml`.

    Raises StateError where the folder holds other networks, and what `start` raises.
    """
    run = start(config, processes)
    _check_same(run)
    resume(run)
    if processes.rank == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_whole(run.folder / "config.toml", lambda draft: draft.write_text(to_toml(config), encoding="utf-8"))
    return run


def resume(run: Run) -> None:
    """Load the newest checkpoint of the run's folder, if there is one."""
    found = checkpoints(run.folder / "checkpoints")
    if found:
        run.step, run.images = load_state(found[-1][1], run.training.networks, run.training.optimisers)
        if run.processes.rank == 0:
            _log.info("resuming at step %d from %s", run.step, found[-1][1])


def _check_same(run: Run) -> None:
    """Refuse other networks than the folder's; warn of each other change."""
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
    free = ("networks.form:", "model.class_names:")  # neither changes a weight
    fixed = [c for c in changed if c.startswith(("model.", "networks.")) and not c.startswith(free)]
    if fixed:
        raise StateError(
            f"[train] expected the networks that '{run.folder}' holds but got {'; '.join(fixed)}; "
            "give another run.out to start a new run"
        )
    if run.processes.rank == 0:
        for change in changed:
            _log.warning("resuming with another configuration: %s", change)
