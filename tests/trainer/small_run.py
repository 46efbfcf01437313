"""The smallest run, for every test of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import TrainConfig
from trainer.config_file import from_tables

TABLES: dict[str, dict[str, Any]] = {
    "model": {"preset": "demo", "height": 32, "width": 32, "nf": 2},
    "networks": {"encoder_nf": 2, "discriminator_nf": 4, "discriminator_layers": 3},
    "data": {"preprocess": "fixed", "scenes": 8, "workers": 0},
    "optim": {"batch": 2, "epochs": 1, "lr": 2e-3},
    "loss": {"perceptual": 0.0, "pixel": 1.0},
    "run": {"checkpoint_steps": 2, "log_steps": 2, "sample_steps": 4, "samples": 2, "calibration": 2, "device": "cpu"},
}


def small(out: Path | None = None, **change: dict[str, Any]) -> TrainConfig:
    """A run of 8 scenes of 32x32, with fields changed by table."""
    tables = {name: dict(table) | change.get(name, {}) for name, table in TABLES.items()}
    if out is not None:
        tables["run"]["out"] = str(out)
    return from_tables(tables, "a test")
