"""What every contender of `benchmarks.training` is given: configuration, batches, device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.maps import read_maps
from spade_core.config import STYLE_DIM
from trainer.augment import CHANGES
from trainer.config import TrainConfig
from trainer.config_file import from_tables
from trainer.data.dataset import Batch, Item, collate
from trainer.processes import Processes


@dataclass(frozen=True)
class Setting:
    """The options of one run of the benchmark, the same for every contender.

    Attributes:
        labels: folder of label maps; None: drawn maps.
        precision: fp32 or bf16.
        repeats: timed steps.
        threads: of PyTorch.
        perceptual: whether the perceptual loss is computed.
        sizes: fields of the model to change, such as its height.
    """

    preset: str
    labels: str | None
    batch: int
    precision: str
    repeats: int
    threads: int
    perceptual: bool
    sizes: dict[str, Any]

    def config(self, form: str, precision: str | None = None) -> TrainConfig:
        """The trainer's configuration for `form`, at the setting's precision unless given."""
        return from_tables(
            {
                "model": {"preset": self.preset, **self.sizes},
                "networks": {"form": form},
                "data": {"layout": "folder", "root": "."},  # required, never read: `batches` makes the batches
                "optim": {"batch": self.batch},
                "run": {"precision": precision or self.precision, "device": "auto"},
            },
            "the benchmark",
        )


def batches(config: TrainConfig, labels: str | None, count: int) -> tuple[list[Batch], float]:
    """`count` batches that repeat the label maps in turn, and the milliseconds to plan one image."""
    maps = read_maps(config.model, None if labels is None else Path(labels))
    random = np.random.default_rng(0)
    shape = (config.model.height, config.model.width, 3)
    items = [
        Item(
            symbols.astype(np.uint16),
            own,
            random.integers(0, 256, shape, np.uint8),
            np.zeros((2, STYLE_DIM), np.float32),
            np.zeros((2, CHANGES), np.float32),
        )
        for symbols, own in zip(maps.symbols, maps.labels, strict=True)
    ]
    size, planned = config.optim.batch, config.networks.form == "codebook"
    began = time.perf_counter()
    made = [
        collate([items[(i * size + j) % len(items)] for j in range(size)], config.model, planned) for i in range(count)
    ]
    return made, (time.perf_counter() - began) * 1e3 / (count * size)


def alone() -> Processes:
    """One process, on a GPU if there is one."""
    return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
