"""Folder layouts of data sets: finds the label map, image and instance map that belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spade_core.config import GeneratorConfig
from spade_core.maps.walk import by_stem, find_files, stem_of

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class DataError(ValueError):
    """A data set cannot be read. The message names the folder or file expected, and what was there."""


@dataclass(frozen=True)
class Example:
    """The files of one training image."""

    labels: Path
    image: Path
    instances: Path | None


@dataclass(frozen=True)
class _Folders:
    """One layout: three folders under the root, and the ends of file names in each. `instances` may be empty: none."""

    labels: str
    images: str
    instances: str
    label_suffix: str = ""
    image_suffix: str = ""
    instance_suffix: str = ""


_LAYOUTS: dict[str, _Folders] = {
    "folder": _Folders("labels", "images", "instances"),
    "coco": _Folders("train_label", "train_img", "train_inst"),
    "ade20k": _Folders("annotations/training", "images/training", ""),
    "cityscapes": _Folders(
        "gtFine/train", "leftImg8bit/train", "gtFine/train", "_gtFine_labelIds", "_leftImg8bit", "_gtFine_instanceIds"
    ),
}


LAYOUTS = tuple(_LAYOUTS)


_TWINS = {"coco": _Folders("train_label_portrait", "train_img_portrait", "train_inst_portrait")}
"""Folders that some copies of a data set have beside the layout's own, here COCO's photos in portrait format."""


def find_examples(layout: str, root: Path, config: GeneratorConfig) -> list[Example]:
    """Find the examples of a data set, sorted by name, with instance maps exactly where config.instance_edges.

    The layout `folder` is labels/, images/ and instances/, each searched at any depth. `coco`, `ade20k` and
    `cityscapes` are the layouts in which these data sets are published and prepared. Raises DataError.
    """
    examples = []
    for _, example in pair_files(layout, root, config.instance_edges):
        if isinstance(example, DataError):
            raise example
        examples.append(example)
    return examples


def has_instances(layout: str, root: Path) -> bool:
    """Whether a data set has a folder of instance maps."""
    name = _LAYOUTS[layout].instances
    return bool(name) and (root / name).is_dir()


def pair_files(layout: str, root: Path, instances: bool) -> list[tuple[Path, Example | DataError]]:
    """Pair every label map of a data set, sorted, with its example, or with an error that names a missing partner.

    An example has an instance map exactly where `instances`. Raises DataError where there is no label map at all.
    """
    found = _pairs(layout, _LAYOUTS[layout], root, instances)
    if layout in _TWINS and (root / _TWINS[layout].labels).is_dir():
        found += _pairs(layout, _TWINS[layout], root, instances)
    return found


def _pairs(layout: str, names: _Folders, root: Path, instances: bool) -> list[tuple[Path, Example | DataError]]:
    labels, images = _folder(layout, root, names.labels), _folder(layout, root, names.images)
    if instances and not names.instances:
        raise DataError(
            f"[data] expected instance maps but the layout '{layout}' has none; set model.instance_edges = false"
        )
    edges = _folder(layout, root, names.instances) if instances else None
    maps = find_files(labels, (".png",), stem_end=names.label_suffix)
    if not maps:
        raise DataError(f"[data] expected label maps (*{names.label_suffix}.png) in '{labels}' but found none")
    partners = _Partners(
        names,
        images,
        _by_stem(images, IMAGE_SUFFIXES, names.image_suffix),
        edges,
        None if edges is None else _by_stem(edges, (".png",), names.instance_suffix),
    )
    stems = [stem_of(path, labels, names.label_suffix) for path in maps]
    if alone := sorted(set(partners.photos) - set(stems)):
        _log.warning(
            "[data] %d photos in '%s' have no label map and are left out: first '%s'", len(alone), images, alone[0]
        )
    return [(path, partners.example(path, stem)) for path, stem in zip(maps, stems, strict=True)]


@dataclass(frozen=True)
class _Partners:
    """The photos and instance maps of a data set by stem."""

    names: _Folders
    images: Path
    photos: Mapping[str, Path]
    edges: Path | None
    instances: Mapping[str, Path] | None

    def example(self, labels: Path, stem: str) -> Example | DataError:
        """The example of a label map, or the error that says which partner is missing."""
        if stem not in self.photos:
            return DataError(
                f"[data] expected an image for the label map '{labels}' as '{self.images / stem}' with one of "
                f"{', '.join(IMAGE_SUFFIXES)} but found none; add it, or take the label map away"
            )
        if self.instances is None or self.edges is None:
            return Example(labels, self.photos[stem], None)
        if stem not in self.instances:
            expected = self.edges / f"{stem}{self.names.instance_suffix}.png"
            return DataError(f"[data] expected an instance map '{expected}' for '{labels}' but found none; add it")
        return Example(labels, self.photos[stem], self.instances[stem])


def _folder(layout: str, root: Path, name: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        there = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else None
        got = f"'{root}' does not exist" if there is None else f"'{root}' holds {', '.join(there) or 'nothing'}"
        raise DataError(f"[data] expected the folder '{folder}' (layout '{layout}') but {got}; give data.root")
    return folder


def _by_stem(folder: Path, suffixes: Sequence[str], stem_end: str) -> dict[str, Path]:
    return by_stem(find_files(folder, suffixes, stem_end=stem_end), folder, stem_end)
