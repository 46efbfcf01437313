"""Positions in the stream of training images -> batches with their plan, made in the loader's processes.

A position is the number of images that training has seen before. The example, its crop, flip and style noise follow
from (seed, position) alone. So any process can make any position, and a resumed run sees the images of an unbroken run.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kernels.constants import DONT_CARE
from spade_core.codebook.entries import LevelTensors, level_tensors
from spade_core.codebook.modulate import by_entry
from spade_core.codebook.plans import plan_levels
from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.maps.colours import ColourTable
from spade_core.maps.label_maps import LabelMapError, check_pair, prepare, read_instance_map, read_label_map
from spade_core.models.label_patches import LabelPatches, label_patches
from spade_core.photos import PhotoError, read_photo
from trainer.augment import CHANGES
from trainer.config import DataConfig, TrainConfig
from trainer.data.layouts import DataError, Example, find_examples
from trainer.data.preprocess import Pixels, preprocess
from trainer.scenes.scene import scene

# Scenes with smaller seeds are never trained on: samples and evaluation draw them.
FIRST_TRAINING_SCENE = 1_000_000


@dataclass(frozen=True)
class Item:
    """One training image: symbols uint16 [H, W], labels uint8 [H, W], image uint8 [H, W, 3], and random numbers.

    Attributes:
        noise: float32 [2, 256], standard normal, for the styles of the first and the second fake image of a step.
        changes: float32 [2, 5] in 0..1, for `diff_augment` of the first and the second judgement of a step.
    """

    symbols: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.uint8]
    image: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.float32]
    changes: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """The images of one pass.

    Attributes:
        symbols: int32 [N, H, W].
        levels: the plan by (height, width); empty for the dense form.
        patches: label patches that the discriminator reads.
        images: uint8 [N, 3, H, W].
        noise: float32 [N, 256], standard normal, samples the styles of the fake images.
        second_noise: float32 [N, 256], samples the styles of the second fakes where optim.updates is alternating.
        changes, second_changes: float32 [N, 5], in the same way for `diff_augment` of the judged images.
    """

    symbols: Tensor
    levels: dict[tuple[int, int], LevelTensors]
    patches: LabelPatches
    images: Tensor
    noise: Tensor
    second_noise: Tensor
    changes: Tensor
    second_changes: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        levels = {
            size: LevelTensors(
                level.patches3.to(device),
                level.patches5.to(device),
                level.index.to(device),
                None if level.order is None else level.order.to(device),
            )
            for size, level in self.levels.items()
        }
        symbols, patches = self.symbols.to(device), self.patches.to(device)
        rest = (self.images, self.noise, self.second_noise, self.changes, self.second_changes)
        return Batch(symbols, levels, patches, *(t.to(device) for t in rest))


class Stream(Dataset[Item]):
    """The training image of every position. Raises DataError, with the file's name, where a file cannot be read."""

    def __init__(self, config: TrainConfig) -> None:
        self.model, self.data, self.seed = config.model, config.data, config.run.seed
        self.examples: list[Example] = []
        self.colours = ColourTable.load(Path(self.data.colours)) if self.data.colours else None
        if self.data.layout != "scenes":
            self.examples = find_examples(self.data.layout, Path(self.data.root), self.model)

    @property
    def epoch(self) -> int:
        """Images in an epoch."""
        return len(self.examples) or self.data.scenes

    def __getitem__(self, position: int) -> Item:
        random = np.random.default_rng([self.seed, position])
        if not self.examples:
            pixels = scene_pixels(FIRST_TRAINING_SCENE + position, self.data, self.model)
            return self.item(pixels, self.data.preprocess, self.data.flip, random)
        epoch, offset = divmod(position, len(self.examples))
        index = int(_order(self.seed, epoch, len(self.examples))[offset])
        return self.example(self.examples[index], self.data.preprocess, self.data.flip, random)

    def example(self, one: Example, mode: str, flip: bool, random: np.random.Generator) -> Item:
        """The item of one example, of this data set or another of its kind; an error names its files."""
        pixels = read_example(one, self.model, self.colours)
        try:
            return self.item(pixels, mode, flip, random)
        except (DataError, LabelMapError) as error:
            raise DataError(f"{error}; the label map is '{one.labels}'") from None

    def item(self, pixels: Pixels, mode: str, flip: bool, random: np.random.Generator) -> Item:
        """The item of an example as read or drawn, brought to size by `mode`."""
        pixels = preprocess(pixels, mode, self.data.load_size, flip, self.model, random)
        return item(pixels, self.model, random)


_orders: dict[tuple[int, int, int], npt.NDArray[np.int64]] = {}


def _order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    if (seed, epoch, size) not in _orders:
        _orders.clear()
        _orders[seed, epoch, size] = np.random.default_rng([seed, epoch, 0x0DE4]).permutation(size)
    return _orders[seed, epoch, size]


def scene_pixels(seed: int, data: DataConfig, model: GeneratorConfig) -> Pixels:
    """A scene drawn at the size before the crop, so that resizing takes no detail away."""
    height, width = model.height, model.width
    if data.preprocess.endswith("crop"):
        step = 2**model.upsamplings
        height, width = (-(-side * data.load_size // (model.width * step)) * step for side in (height, width))
    drawn = scene(seed, height=height, width=width, look=data.look)
    return Pixels(drawn.labels, drawn.instances if model.instance_edges else None, drawn.image)


def read_example(example: Example, model: GeneratorConfig, colours: ColourTable | None = None) -> Pixels:
    """Read the files of an example, and check that their sizes fit. Raises DataError.

    `colours` looks up a label map in RGB. The photo keeps its own size, so that it is resampled only once.
    """
    path = example.labels
    instances = None
    try:
        labels = read_label_map(path, colours=colours)
        if example.instances is not None:
            path = example.instances
            instances = read_instance_map(path)
            check_pair(labels, instances, f"'{path}'")
        path = example.image
        image = read_photo(path)
    except (LabelMapError, PhotoError) as error:
        raise DataError(f"[data] expected readable files but got an error at '{path}': {error}") from None
    # In prepared data sets, sizes differ by a pixel here and there. Another aspect means a wrong pair.
    if abs(image.shape[0] * labels.shape[1] / (image.shape[1] * labels.shape[0]) - 1) > 0.05:
        raise DataError(
            f"[data] expected '{example.image}' to have the aspect of its label map, {labels.shape[1]}x"
            f"{labels.shape[0]}, but got {image.shape[1]}x{image.shape[0]}; are the two a pair?"
        )
    if model.preset == "cityscapes" and model.classes <= DONT_CARE:
        # labelIds files store the license plate, -1, as 255. The network has no such class: 0 is unlabeled.
        labels = np.where(labels == DONT_CARE, np.uint8(0), labels)
    return Pixels(labels, instances, image)


def item(pixels: Pixels, model: GeneratorConfig, random: np.random.Generator) -> Item:
    """The item of an example at the model's size, with new noise. Raises LabelMapError."""
    instances = None if pixels.instances is None else pixels.instances[None]
    symbols = prepare(pixels.labels[None], instances, model)[0]
    noise = random.standard_normal((2, STYLE_DIM), dtype=np.float32)
    return Item(symbols, pixels.labels, pixels.image, noise, random.random((2, CHANGES), dtype=np.float32))


def collate(items: Sequence[Item], model: GeneratorConfig, planned: bool) -> Batch:
    """Items of one size -> a batch, with its plan where `planned`. Raises DataError for items of several sizes."""
    shapes = {one.symbols.shape for one in items}
    if len(shapes) > 1:
        raise DataError(
            f"[data] expected images of one size in a batch but got {sorted(shapes)}; take a data.preprocess that "
            "crops, or `fixed`, or optim.batch = 1"
        )
    symbols = np.stack([one.symbols for one in items])
    levels: dict[tuple[int, int], LevelTensors] = {}
    if planned:
        levels = level_tensors(plan_levels(symbols, model), torch.device("cpu"))
        levels = {size: replace(one, order=by_entry(one.index, len(one.patches5))) for size, one in levels.items()}
    images = np.stack([one.image for one in items]).transpose(0, 3, 1, 2)
    return Batch(
        torch.from_numpy(symbols.astype(np.int32)),
        levels,
        label_patches(symbols, model.symbols),
        torch.from_numpy(np.ascontiguousarray(images)),
        *torch.from_numpy(np.stack([one.noise for one in items], axis=1)),  # [2, N, 256]
        *torch.from_numpy(np.stack([one.changes for one in items], axis=1)),  # [2, N, 5]
    )


@dataclass(frozen=True)
class Positions:
    """The batches of process `rank` from position `first` to `last`; a pass deals `batch` positions to each process.

    Batches are made as they are asked for: a whole training of COCO has twelve million positions.
    """

    first: int
    last: int
    rank: int
    world: int
    batch: int

    def __len__(self) -> int:
        return (self.last - self.first) // (self.batch * self.world)

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(len(self)):
            start = self.first + (i * self.world + self.rank) * self.batch
            yield list(range(start, start + self.batch))


def loader(stream: Stream, config: TrainConfig, batches: Positions, workers: int) -> Iterator[Batch]:
    """Batches in order, made by `workers` processes; 0: by this process. Raises DataError."""
    planned = config.networks.form == "codebook"
    made: DataLoader[Batch] = DataLoader(
        stream,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=partial(collate, model=config.model, planned=planned),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker,
        persistent_workers=False,
    )
    batches_made = iter(made)
    try:
        yield from batches_made
    except (DataError, LabelMapError) as error:
        # A worker's error comes wrapped in its traceback; the user needs the message only.
        found = re.search(r"Error: (\[.*)", str(error), re.DOTALL)
        raise DataError(found[1].strip() if found else str(error)) from None
    finally:
        # An error's traceback refers to itself and to the iterator, so the workers would live until a collection. At
        # the end of the process they would ignore Python's SIGTERM, since it is the first, and Python waits for them.
        if workers:
            batches_made._shutdown_workers()  # type: ignore[attr-defined]


def _start_worker(worker: int) -> None:  # noqa: ARG001 - the loader passes it
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the trainer ends its workers
    # torchrun and systemd send SIGTERM to all processes. The trainer answers the first one; the second ends the worker.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
