"""Reads a whole data set before training: finds bad files, counts classes and sizes, and draws a contact sheet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kernels.constants import DONT_CARE
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.maps.colours import ColourTable, class_names, class_palette, palette
from spade_core.maps.label_maps import LabelMapError, check_labels, resize_nearest_centred
from spade_core.maps.sheet import contact_sheet
from spade_core.photos import resize_photo
from spade_core.types import Image as Photo
from spade_core.types import Map
from trainer.data.dataset import read_example
from trainer.data.layouts import DataError, Example, has_instances, pair_files

SHOWN = 24
"""Pairs on the contact sheet."""

_COLUMNS, _SHEET_HEIGHT = 6, 128
_ANY_MODEL = replace(PRESETS["demo"], preset="any")  # `read_example` then leaves ids as stored
_AT_ONCE = 256  # pairs handed to the threads at a time


@dataclass(frozen=True)
class DataSet:
    """A data set to check, and the model that is to read it.

    Attributes:
        layout, root: as in training.
        config: the model. None: any ids are good, and instance maps are read if there is a folder of them.
        colours: looks up label maps in RGB.
    """

    layout: str
    root: Path
    config: GeneratorConfig | None
    colours: ColourTable | None

    @property
    def instances(self) -> bool:
        """Whether instance maps are read."""
        return has_instances(self.layout, self.root) if self.config is None else self.config.instance_edges


@dataclass(frozen=True)
class BadFile:
    """A label map that training could not use, and why. The reason names the photo or instance map that is at fault."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Report:
    """The findings of a check.

    Attributes:
        label_maps: number of label maps, bad ones included.
        bad: pairs that training could not use.
        sizes: good pairs by (height, width) of the label map.
        pixels: int64 [256], pixels of each id in good label maps, as training reads them.
        maps: int64 [256], good label maps that hold each id.
        sheet: good pairs from all over the data set; None where there is none.
    """

    label_maps: int
    bad: tuple[BadFile, ...]
    sizes: Counter[tuple[int, int]]
    pixels: npt.NDArray[np.int64]
    maps: npt.NDArray[np.int64]
    sheet: Image.Image | None


@dataclass(frozen=True)
class _Pair:
    """One good pair: the size, the pixels of each id [256], and label map and photo if the sheet shows them."""

    size: tuple[int, int]
    pixels: npt.NDArray[np.int64]
    shown: tuple[Map, Photo] | None


Pairs = Sequence[tuple[Path, Example | DataError]]
"""Label maps, each with its partners or the error that says which partner is missing."""


def find_pairs(data: DataSet) -> Pairs:
    """Pair the label maps of a data set with their partners. Raises DataError where there is no label map."""
    return pair_files(data.layout, data.root, data.instances)


def check_data(data: DataSet, pairs: Pairs, done: Callable[[int], None]) -> Report:
    """Read every file of a data set as training does. No bad file stops the check.

    `pairs` come from `find_pairs`. `done` hears how many more label maps were read.
    """
    shown = {round(i * (len(pairs) - 1) / (SHOWN - 1)) for i in range(SHOWN)}
    tasks = [(path, example, i in shown) for i, (path, example) in enumerate(pairs)]
    bad: list[BadFile] = []
    sizes: Counter[tuple[int, int]] = Counter()
    pixels, maps = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sheet: list[tuple[Map, Photo]] = []
    for one in _in_threads(partial(_read, data), tasks):
        done(1)
        if isinstance(one, BadFile):
            bad.append(one)
            continue
        sizes[one.size] += 1
        pixels += one.pixels
        maps += one.pixels > 0
        if one.shown is not None:
            sheet.append(one.shown)
    return Report(len(pairs), tuple(bad), sizes, pixels, maps, _sheet(sheet, data))


_Task = tuple[Path, Example | DataError, bool]  # a label map, its example or the error, and whether the sheet shows it


def _in_threads(read: Callable[[_Task], _Pair | BadFile], tasks: Sequence[_Task]) -> Iterator[_Pair | BadFile]:
    """Yield results in order. Image decoders release the interpreter's lock, so threads read several files at once."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        for first in range(0, len(tasks), _AT_ONCE):
            yield from pool.map(read, tasks[first : first + _AT_ONCE])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt waits for no file


def _read(data: DataSet, task: _Task) -> _Pair | BadFile:
    path, example, shown = task
    if isinstance(example, DataError):
        return BadFile(path, str(example))
    try:
        pixels = read_example(example, data.config or _ANY_MODEL, data.colours)
        if data.config is not None:
            check_labels(pixels.labels[None], data.config)
    except (DataError, LabelMapError) as error:
        return BadFile(path, str(error))
    height, width = pixels.labels.shape
    counts = np.bincount(pixels.labels.reshape(-1), minlength=256)
    return _Pair((height, width), counts, (pixels.labels, pixels.image) if shown else None)


def _sheet(pairs: Sequence[tuple[Map, Photo]], data: DataSet) -> Image.Image | None:
    """Draw the pairs, all at the aspect of the first."""
    if not pairs:
        return None
    height, width = pairs[0][0].shape
    size = (_SHEET_HEIGHT, max(1, round(_SHEET_HEIGHT * width / height)))
    labels = np.stack([resize_nearest_centred(one, *size) for one, _ in pairs])
    photos = np.stack([resize_photo(photo, *size) for _, photo in pairs])
    return contact_sheet(labels, photos, _palette(data), _COLUMNS)


def _palette(data: DataSet) -> npt.NDArray[np.uint8]:
    if data.config is not None:
        return class_palette(data.config, data.colours)
    return palette(256) if data.colours is None else data.colours.recoloured(palette(256))


def names_of(data: DataSet) -> tuple[str, ...]:
    """Name each id 0..255 of a file: by the colour table, else by the model, else `class 7`."""
    names = [f"class {i}" for i in range(256)]
    if data.config is not None:
        known = class_names(data.config)
        names[: len(known)] = known
        if data.config.dont_care:
            names[DONT_CARE] = known[-1]
    if data.colours is not None:
        for label, name in zip(data.colours.ids, data.colours.names, strict=True):
            names[label] = name or names[label]
    return tuple(names)
