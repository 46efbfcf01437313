"""Layers of CLADE, SEAN and LivePortrait, rebuilt from their papers, before and after `accelerate`, in turn.

python -m benchmarks.accelerate.layers --labels DIR --json out.json
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.accelerate.networks import Case, one_hot
from benchmarks.accelerate.run import measure, table_of
from benchmarks.common.console import console
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option
from benchmarks.common.report import write_report
from spade_core.config import preset

_STYLE = 128


class ClassTables(nn.Module):
    """CLADE: gamma and beta of each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.gamma, self.beta = nn.Embedding(classes, channels), nn.Embedding(classes, channels)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        labels = F.interpolate(segmap, size=x.shape[2:], mode="nearest").argmax(1)
        out: Tensor = self.norm(x) * self.gamma(labels).movedim(-1, 1) + self.beta(labels).movedim(-1, 1)
        return out


class Spade(nn.Module):
    """LivePortrait: SPADE, here on features."""

    def __init__(self, channels: int, channels_in: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Sequential(nn.Conv2d(channels_in, 128, 3, padding=1), nn.ReLU())
        self.gamma, self.beta = (nn.Conv2d(128, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = self.shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest"))
        out: Tensor = self.norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)
        return out


class RegionStyles(nn.Module):
    """SEAN: SPADE's gamma and beta, mixed with convs on a map of the styles of regions."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Sequential(nn.Conv2d(classes, 128, 3, padding=1), nn.ReLU())
        self.gamma, self.beta = (nn.Conv2d(128, channels, 3, padding=1) for _ in range(2))
        self.style_gamma, self.style_beta = (nn.Conv2d(_STYLE, channels, 3, padding=1) for _ in range(2))
        self.share = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, segmap: Tensor, codes: Tensor) -> Tensor:
        segmap = F.interpolate(segmap, size=x.shape[2:], mode="nearest")
        styles, hidden = torch.einsum("nlhw,nls->nshw", segmap, codes), self.shared(segmap)
        gamma = torch.lerp(self.gamma(hidden), self.style_gamma(styles), self.share[0].sigmoid())
        beta = torch.lerp(self.beta(hidden), self.style_beta(styles), self.share[1].sigmoid())
        out: Tensor = self.norm(x) * (1 + gamma) + beta
        return out


def cases(segmap: Tensor, channels: int) -> list[Case]:
    """The layers on a one-hot map [1, L, H, W], at its size."""
    classes, size = segmap.shape[1], segmap.shape[2:]
    x, codes = torch.randn(1, channels, *size), torch.randn(1, classes, _STYLE)
    features = torch.randn(1, 256, *(side // 4 for side in size))
    return [
        Case("CLADE", ClassTables(channels, classes), segmap, lambda net: net(x, segmap)),
        Case("SEAN", RegionStyles(channels, classes), segmap, lambda net: net(x, segmap, codes)),
        Case("SPADE on features", Spade(channels, 256), features, lambda net: net(x, features)),
    ]


@click.command()
@labels_option()
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True, help="Turns of each layer.")
@click.option("--channels", type=click.IntRange(1), default=128, show_default=True, help="Channels of x.")
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch; all by default.")
@json_option()
def main(labels: Path | None, turns: int, channels: int, threads: int | None, json_path: Path | None) -> None:
    """Time layers of CLADE, SEAN and LivePortrait before and after `accelerate`."""
    torch.manual_seed(0)
    if threads is not None:
        torch.set_num_threads(threads)
    config = preset("coco")
    chosen = torch.from_numpy(read_maps(config, labels, 1).labels[:1].astype("int64"))
    chosen[chosen == 255] = config.label_nc
    rows = [measure(case, turns) for case in cases(one_hot(chosen, config.classes), channels)]
    console().print(table_of(rows))
    if json_path is not None:
        report = {"labels": labels_name(labels), "threads": torch.get_num_threads(), "turns": turns}
        write_report(json_path, report | {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
