"""Folder layouts of data sets: which label map, image and instance map belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spade_core.config import GeneratorConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class DataError(ValueError):
    """A data set that cannot be read; the message holds the folder or file expected, and what was there."""


@dataclass(frozen=True)
class Example:
    """The files of one training image."""

    labels: Path
    image: Path
    instances: Path | None


@dataclass(frozen=True)
class _Folders:
    """One layout: three folders under the root, and how a label map's name becomes the others'."""

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


def find_examples(layout: str, root: Path, config: GeneratorConfig) -> list[Example]:
    """The examples of a data set, sorted by name. Instance maps exactly where config.instance_edges.

    `folder` is labels/*.png, images/*, and instances/*.png, searched as deep as they go; `coco`, `ade20k` and
    `cityscapes` are the layouts these data sets are published and prepared in. Raises DataError.
    """
    names = _LAYOUTS[layout]
    labels, images = _folder(layout, root, names.labels), _folder(layout, root, names.images)
    instances = _folder(layout, root, names.instances) if config.instance_edges else None
    if config.instance_edges and not names.instances:
        raise DataError(
            f"[data] expected instance maps but the layout '{layout}' has none; set model.instance_edges = false"
        )
    maps = sorted(p for p in labels.rglob("*.png") if p.stem.endswith(names.label_suffix))
    if not maps:
        raise DataError(f"[data] expected label maps (*{names.label_suffix}.png) in '{labels}' but found none")
    found = _by_name(images, names.image_suffix)
    return [
        Example(
            path,
            _partner(found, _key(path, labels, names.label_suffix), path, images),
            None if instances is None else _instance(instances, labels, path, names),
        )
        for path in maps
    ]


def _folder(layout: str, root: Path, name: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        there = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else None
        got = f"'{root}' does not exist" if there is None else f"'{root}' holds {', '.join(there) or 'nothing'}"
        raise DataError(f"[data] expected the folder '{folder}' (layout '{layout}') but {got}; give data.root")
    return folder


def _key(path: Path, folder: Path, suffix: str) -> str:
    return str(path.relative_to(folder).with_suffix("")).removesuffix(suffix)


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    return {
        _key(p, folder, suffix): p
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in IMAGE_SUFFIXES and p.stem.endswith(suffix)
    }


def _partner(found: dict[str, Path], key: str, labels: Path, folder: Path) -> Path:
    if key not in found:
        raise DataError(
            f"[data] expected an image for the label map '{labels}' as '{folder / key}' with one of "
            f"{', '.join(IMAGE_SUFFIXES)} but found none; add it, or take the label map away"
        )
    return found[key]


def _instance(instances: Path, labels: Path, path: Path, names: _Folders) -> Path:
    key = _key(path, labels, names.label_suffix)
    found = instances / f"{key}{names.instance_suffix}.png"
    if not found.is_file():
        raise DataError(f"[data] expected an instance map '{found}' for '{path}' but found none; add it")
    return found
