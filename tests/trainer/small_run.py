"""The smallest run, for every test of the trainer: its configuration, its batches, its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.config import TrainConfig
from trainer.config_file import from_tables
from trainer.data.dataset import Batch, Positions, Stream, loader
from trainer.networks import Networks
from trainer.processes import Processes
from trainer.training import Training, optimisers

ALONE = Processes(0, 1, torch.device("cpu"))

TABLES: dict[str, dict[str, Any]] = {
    "model": {"preset": "demo", "height": 32, "width": 32, "nf": 2},
    "networks": {"encoder_nf": 2, "discriminator_nf": 4, "discriminator_layers": 3},
    "data": {"preprocess": "fixed", "scenes": 8, "workers": 0},
    "optim": {"batch": 2, "epochs": 1, "lr": 2e-3},
    "loss": {"perceptual": 0.0, "pixel": 1.0},
    "run": {
        "checkpoint_steps": 2,
        "log_steps": 2,
        "sample_steps": 4,
        "samples": 2,
        "calibration": 2,
        "device": "cpu",
        "precision": "fp32",
    },
}


def small(out: Path | None = None, **change: dict[str, Any]) -> TrainConfig:
    """A run of 8 scenes of 32x32, with fields changed by table."""
    tables = {name: TABLES.get(name, {}) | change.get(name, {}) for name in (*TABLES, *change)}
    if out is not None:
        tables["run"]["out"] = str(out)
    return from_tables(tables, "a test")


def batches(config: TrainConfig, count: int = 1) -> list[Batch]:
    size = config.optim.batch
    return list(loader(Stream(config), config, Positions(0, count * size, 0, 1, size), 0))


def training(networks: Networks, config: TrainConfig) -> Training:
    return Training(networks, optimisers(networks, config.optim), None, config, ALONE)
