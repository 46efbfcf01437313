"""Label maps for verification and benchmarks: real ones from a folder, or drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spade_core.config import GeneratorConfig
from spade_core.maps.drawn import SCENE_IDS, demo_map
from spade_core.maps.label_maps import check_pair, prepare, read_instance_map, read_label_map, resize_nearest_centred
from spade_core.maps.walk import find_files
from spade_core.models.style import style_from_seed


@dataclass(frozen=True)
class Maps:
    """The inputs of a generator for N images.

    Attributes:
        labels: uint8 [N, H, W].
        instances: int32 [N, H, W]; None where the generator reads no edges.
        symbols: int32 [N, H, W], made of both.
        style: float32 [N, 256]; None where the generator has no style input.
    """

    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32] | None
    symbols: npt.NDArray[np.int32]
    style: npt.NDArray[np.float32] | None

    def one(self, i: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None, npt.NDArray[np.float32] | None]:
        """Labels, instances and style of map `i`, as a batch of one."""
        part = slice(i, i + 1)
        return (
            self.labels[part],
            None if self.instances is None else self.instances[part],
            None if self.style is None else self.style[part],
        )


def read_maps(config: GeneratorConfig, folder: Path | None, count: int = 8) -> Maps:
    """Read the first `count` maps of `folder` at the model's size; without a folder, draw `count` maps.

    Instance maps are read from the folder's inst/; where there is none, all instance ids are 0. Raises ValueError.
    """
    size = (config.height, config.width)
    if folder is None:
        labels, instances = drawn_maps(config, count)
    else:
        paths = label_map_paths(folder)[:count]
        whole = [read_label_map(path) for path in paths]
        labels = np.stack([resize_nearest_centred(one, *size) for one in whole])
        instances = np.zeros(labels.shape, np.int32)
        if (folder / "inst").is_dir():
            for into, one, path in zip(instances, whole, paths, strict=True):
                inst = instance_map_path(folder, path)
                own = read_instance_map(inst)
                check_pair(one, own, f"'{inst}'")
                into[:] = resize_nearest_centred(own, *size)
    edges = instances if config.instance_edges else None
    style = np.stack([style_from_seed(i) for i in range(len(labels))]) if config.style else None
    return Maps(labels, edges, prepare(labels, edges, config).astype(np.int32), style)


def label_map_paths(folder: Path) -> list[Path]:
    """Find the label maps of `folder`/label or, where there is no label/, of `folder`. Raises ValueError for none."""
    label_dir = _label_folder(folder)
    # Where there is no label/, inst/ lies among the label maps.
    paths = find_files(label_dir, (".png",), exclude=folder / "inst")
    if not paths:
        raise ValueError(f"[maps] expected PNG label maps in {label_dir} but found none")
    return paths


def instance_map_path(folder: Path, labels: Path) -> Path:
    """The path that the instance map of a label map has: `labels` is one of `label_map_paths(folder)`."""
    return folder / "inst" / labels.relative_to(_label_folder(folder))


def _label_folder(folder: Path) -> Path:
    return folder / "label" if (folder / "label").is_dir() else folder


def drawn_maps(config: GeneratorConfig, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Draw labels and instances [count, H, W]: landscapes, or rectangles where the preset's classes have no names."""
    if config.preset in SCENE_IDS and max(SCENE_IDS[config.preset]) < config.classes:
        drawn = [demo_map(seed, config) for seed in range(count)]
        return np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])
    random = np.random.default_rng(0)
    labels = np.zeros((count, config.height, config.width), np.uint8)
    for one in labels:
        for _ in range(24):
            top, left = random.integers(config.height), random.integers(config.width)
            one[top : top + config.height // 3, left : left + config.width // 3] = random.integers(config.label_nc)
    return labels, labels.astype(np.int32)
