"""A small segmentation network for the scenes, which gives the demo model an mIoU.

`python -m trainer.evaluation.segmentation` trains the network that ships as `segmentation.safetensors`. A second
network, of another seed and other scenes, is the perceptual loss of the demo model's training: a network that teaches
must not judge.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spade_core.files.whole_file import write_whole
from spade_core.maps.drawn import NAMES
from trainer.scenes.scene import LOOKS, scene

SHIPPED = Path(__file__).with_name("segmentation.safetensors")
LIT = Path(__file__).with_name("segmentation_lit.safetensors")  # knows the look `lit`, the shipped one `flat`
SIZE = 128  # height and width of the training images, pixels
FEATURES = Path(__file__).with_name("scene_features.safetensors")
LIT_FEATURES = Path(__file__).with_name("scene_features_lit.safetensors")
FIRST_SCENE = 500_000  # first seed of training; smaller seeds are for evaluation, from 1_000_000 on for generators
FIRST_TEACHER_SCENE = 700_000
WIDTHS = (16, 32, 64, 64)


class SegmentationNetwork(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015): two convs a level, 2x2 max pooling down, bilinear x2 up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(3, WIDTHS[0]), _conv(WIDTHS[0], WIDTHS[0]))
        self.down = nn.ModuleList(nn.Sequential(_conv(fin, fout), _conv(fout, fout)) for fin, fout in pairwise(WIDTHS))
        self.up = nn.ModuleList(_conv(deep + flat, flat) for flat, deep in reversed(list(pairwise(WIDTHS))))
        self.head = nn.Conv2d(WIDTHS[0], len(NAMES), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images [N, 3, H, W] in -1..1, H and W multiples of 8 -> logits of the demo classes [N, 16, H, W]."""
        return self.features(image)[-1]

    def features(self, image: Tensor) -> list[Tensor]:
        """The feature maps of each size on the way down, the largest first, then the logits."""
        x = self.first(image)
        levels = [x]
        for block in self.down:
            x = block(F.max_pool2d(x, 2))
            levels.append(x)
        for block, flat in zip(self.up, levels[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, flat], dim=1))
        return [*levels, self.head(x)]


def network_file(look: str, *, teacher: bool) -> Path:
    """Where the judge of scenes of a look ships, or the teacher's features."""
    if teacher:
        return LIT_FEATURES if look == "lit" else FEATURES
    return LIT if look == "lit" else SHIPPED


def load_segmentation(path: Path = SHIPPED) -> SegmentationNetwork:
    """The trained network, in eval mode. Raises FileNotFoundError where it is not trained yet."""
    if not path.exists():
        raise FileNotFoundError(
            f"[scenes] expected the trained network '{path}' but it is not there; train it: "
            f"python -m trainer.evaluation.segmentation --look lit{' --teacher' * (path == LIT_FEATURES)}"
        )
    network = SegmentationNetwork()
    counts = {k: torch.zeros((), dtype=torch.int64) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    network.load_state_dict(counts | {key: tensor.float() for key, tensor in load_file(path).items()})
    return network.eval()


@dataclass(frozen=True)
class Piece:
    """A part of a training that later parts go on with: `state` holds all that the next one needs.

    Attributes:
        state: a file; a training found there resumes.
        over: whether this part ends before the next step.
    """

    state: Path
    over: Callable[[], bool]


def train(
    steps: int,
    batch: int,
    seed: int,
    done: Callable[[int, float], None],
    first_scene: int = FIRST_SCENE,
    look: str = "flat",
    piece: Piece | None = None,
) -> SegmentationNetwork | None:
    """Train on scenes from `first_scene` on; the learning rate falls along a cosine. None where a piece ended first.

    Rare classes weigh more in the cross-entropy. Images are blurred and made noisy at random, since the images
    of a generator are less sharp and less clean than scenes.

    Args:
        done: called after each step with the step and its loss.
        look: how the scenes are drawn.
        piece: resume, and stop in time; None trains to the end.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = SegmentationNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    counts = torch.ones(len(NAMES))
    parts, first = (network, optimiser, schedule), 0
    if piece is not None and piece.state.exists():
        first = _resume(piece.state, parts, counts, random)
    for step in range(first, steps):
        if piece is not None and piece.over():
            _keep(piece.state, parts, counts, random, step)
            return None
        images, labels = _batch(first_scene + step * batch, batch, random, look)
        counts += torch.bincount(labels.flatten(), minlength=len(NAMES))
        weights = (counts.sum() / counts).sqrt()
        loss = F.cross_entropy(network(images), labels, weight=weights / weights.mean())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        done(step, loss.item())
    return network.eval()


_Parts = tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]


def _keep(path: Path, parts: _Parts, counts: Tensor, random: np.random.Generator, step: int) -> None:
    state = [part.state_dict() for part in parts]
    held = {"parts": state, "counts": counts, "random": random.bit_generator.state, "step": step}
    write_whole(path, lambda draft: torch.save(held, draft))


def _resume(path: Path, parts: _Parts, counts: Tensor, random: np.random.Generator) -> int:
    """Fill the parts of a training from a file; returns the steps taken."""
    held = torch.load(path, weights_only=True)
    network, optimiser, schedule = parts
    network.load_state_dict(held["parts"][0])
    optimiser.load_state_dict(held["parts"][1])
    schedule.load_state_dict(held["parts"][2])
    counts.copy_(held["counts"])
    random.bit_generator.state = held["random"]
    return int(held["step"])


def save(network: nn.Module, path: Path) -> None:
    """Write the weights in bfloat16 and the running statistics in float32."""
    tensors = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(
        {k: (v if "running_" in k else v.bfloat16()).contiguous() for k, v in tensors.items()},
        path,
        metadata={"made_by": "python -m trainer.evaluation.segmentation"},
    )


def _batch(first: int, count: int, random: np.random.Generator, look: str) -> tuple[Tensor, Tensor]:
    drawn = [scene(first + i, height=SIZE, width=SIZE, look=look) for i in range(count)]
    flip = random.random(count) < 0.5
    pixels = np.stack([one.image[:, ::-1] if f else one.image for one, f in zip(drawn, flip, strict=True)])
    labels = np.stack([one.labels[:, ::-1] if f else one.labels for one, f in zip(drawn, flip, strict=True)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    if random.random() < 0.3:
        small = F.interpolate(images, scale_factor=0.5, mode="area")
        images = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    spread = float(random.uniform(0, 0.1))
    images = images + spread * torch.from_numpy(random.standard_normal(tuple(images.shape), np.float32))
    images = images * float(random.uniform(0.9, 1.1)) + float(random.uniform(-0.1, 0.1))
    return images.clamp(-1, 1).contiguous(memory_format=torch.channels_last), torch.from_numpy(labels).long()


def _conv(fin: int, fout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(fin, fout, 3, padding=1, bias=False), nn.BatchNorm2d(fout), nn.ReLU())


@click.command()
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(2), default=8, show_default=True, help="Scenes in a step.")
@click.option("--teacher", is_flag=True, help="Train the network of the perceptual loss, on other scenes.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of PyTorch.")
@click.option("--look", type=click.Choice(LOOKS), default="flat", show_default=True, help="How the scenes are drawn.")
@click.option("--minutes", type=click.FloatRange(0), help="Stop after these, and go on when the command is run again.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: where it is shipped]"
)
def main(
    steps: int, batch: int, teacher: bool, threads: int, look: str, minutes: float | None, out: Path | None
) -> None:
    """Train a network of the scenes, the judge or a teacher, and write its weights.

    Exit status 3: the minutes are over; run the command again.
    """
    out = out or network_file(look, teacher=teacher)
    state = out.with_suffix(".state")
    torch.set_num_threads(threads)
    seed, first_scene = (1, FIRST_TEACHER_SCENE) if teacher else (0, FIRST_SCENE)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=steps)

        def done(step: int, loss: float) -> None:
            progress.update(task, completed=step + 1, description=f"loss {loss:.3f}")

        began = time.monotonic()
        piece = None if minutes is None else Piece(state, lambda: time.monotonic() - began > 60 * minutes)
        network = train(steps, batch, seed, done, first_scene, look, piece)
    if network is None:
        click.echo(f"not done; run the command again: it resumes from {state}", err=True)
        sys.exit(3)
    save(network, out)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
