"""Label and instance maps: read from files, resized, checked, and turned into the symbols that a generator reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.constants import DONT_CARE
from kernels.ops.symbols import instance_edges, symbols
from spade_core.config import MAX_PIXELS, ConfigError, GeneratorConfig, level_sizes
from spade_core.maps.colours import ColourTable
from spade_core.maps.png import LabelMapError, read_png
from spade_core.types import Edges, Instances, Labels, Map, Symbols

__all__ = [
    "LabelMapError",
    "check_labels",
    "check_pair",
    "instance_edges",
    "prepare",
    "read_instance_map",
    "read_label_map",
    "resize_nearest_centred",
    "to_symbols",
]


_FIXES = {
    "coco": "COCO-Stuff ids are the official ids - 1 (0..181), with 255 for unlabeled",
    "ade20k": "ADE20K ids are the raw values of its PNG files (0 unknown, 1 wall, .. 150)",
    "cityscapes": "use the labelIds files, not trainIds",
}


def read_label_map(source: Path | bytes, *, colours: ColourTable | None = None, max_pixels: int = MAX_PIXELS) -> Map:
    """Read a PNG file: ids uint8 [H, W], as stored.

    Pixels of a grey image (1 to 16 bits) are the ids; of a palette image, the indices are. An RGB image is looked up in
    `colours`. Without `colours`, an RGB image whose three channels are equal is read as grey. Raises LabelMapError.
    """
    png = read_png(source, max_pixels=max_pixels)
    if png.kind == "rgb":
        return _from_rgb(png.pixels, colours)
    top = int(png.pixels.max())
    if top > 255:
        row, column = _first(png.pixels > 255)
        raise LabelMapError(
            f"[label_map] expected ids 0..255 in a 16-bit map but got {int(png.pixels[row, column])} at row {row}, "
            f"column {column} (largest {top}); is this an instance map? Map its ids to class ids first"
        )
    return np.ascontiguousarray(png.pixels, dtype=np.uint8)


def _from_rgb(rgb: npt.NDArray[Any], colours: ColourTable | None) -> Map:
    if colours is None:
        if np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2]):
            return np.ascontiguousarray(rgb[..., 0])
        raise LabelMapError(
            "[label_map] expected ids (a grey or palette PNG) but got an RGB image in colours and no colour table; "
            "give one, a CSV file with the columns id,r,g,b,name: --colours FILE, data.colours in training, or its "
            "text as the request parameter colours"
        )
    ids, known = colours.ids_of(rgb)
    if not known.all():
        row, column = _first(~known)
        colour = tuple(int(v) for v in rgb[row, column])
        count = int(np.count_nonzero((rgb == rgb[row, column]).all(axis=-1)))
        others = int(np.count_nonzero(~known)) - count
        raise LabelMapError(
            f"[label_map] expected the {len(colours.ids)} colours of the table but got {colour} in {count} pixels, "
            f"first at row {row}, column {column} ({others} pixels have other unknown colours); "
            "add it to the table, or save the map without smoothing (no antialiasing, no JPEG)"
        )
    return ids


def read_instance_map(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.int32]:
    """Read a PNG file: instance ids int32 [H, W], from grey (1 to 16 bits), palette, or RGB as r + 256 g + 65536 b.

    The ids may be any: a generator reads only the edges between them. Raises LabelMapError.
    """
    png = read_png(source, max_pixels=max_pixels)
    values = png.pixels.astype(np.int32)
    return values @ np.array([1, 256, 65536], np.int32) if png.kind == "rgb" else values


def resize_nearest_centred(maps: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Resize maps that were read from files: [H, W] or [N, H, W] -> [.., height, width] of the same dtype.

    Takes the pixels that Pillow's NEAREST takes: source row floor((i + 0.5) * H / height), the row under the middle of
    the new row. So a label map stays under its photo, whose bicubic resize is centred too. Inside the network, the
    label map of each level is made by another grid, floor(i * H / h): see `kernels.ops.plan`, and
    `F.interpolate(mode="nearest")` in the dense form. Raises LabelMapError.
    """
    if maps.ndim not in (2, 3) or 0 in maps.shape:
        raise LabelMapError(
            f"[resize] expected a map [H, W] or [N, H, W] with pixels but got shape {maps.shape}; give at least one"
        )
    if height < 1 or width < 1:
        raise LabelMapError(f"[resize] expected a height and width of at least 1 but got {height}x{width}; give both")
    if maps.shape[-2:] == (height, width):
        return maps
    rows, columns = _centred_sources(maps.shape[-2], height), _centred_sources(maps.shape[-1], width)
    resized: npt.NDArray[Any] = maps[..., rows[:, None], columns[None, :]]
    return resized


def _centred_sources(size: int, new_size: int) -> npt.NDArray[np.int64]:
    """floor((i + 0.5) * size / new_size) for each i. Adds up the steps in float64 as Pillow does, errors included."""
    steps = np.full(new_size, size / new_size)
    steps[0] *= 0.5
    return np.add.accumulate(steps).astype(np.int64)


def check_pair(labels: Map, instances: npt.NDArray[np.int32], name: str) -> None:
    """Check that the two maps of one image, each [H, W] as read from its file, have one size. Raises LabelMapError.

    If each were resized from a size of its own, edges could lie beside their objects. `name` names the instance map.
    """
    if instances.shape != labels.shape:
        raise LabelMapError(
            f"[label_map] expected {name} to have the size of its label map, {_size(labels)}, but got "
            f"{_size(instances)} (width x height); are the two a pair?"
        )


def _size(one: npt.NDArray[Any]) -> str:
    return f"{one.shape[1]}x{one.shape[0]}"


def check_labels(labels: Labels, config: GeneratorConfig) -> Labels:
    """Check ids uint8 [N, H, W], and return ids 0 .. classes - 1.

    Where the config has "don't care", 255 becomes label_nc, in a copy. Raises LabelMapError, which names the first bad
    id, its pixels and the fix.
    """
    ids = np.where(labels == DONT_CARE, np.uint8(config.label_nc), labels) if config.dont_care else labels
    if ids.size and int(ids.max()) >= config.classes:
        raise _bad_id(ids, config)
    return ids


def _bad_id(ids: Labels, config: GeneratorConfig) -> LabelMapError:
    counts = np.bincount(ids.reshape(-1), minlength=256)
    item, row, column = _first(ids >= config.classes)
    bad = int(ids[item, row, column])
    others = [int(i) for i in np.flatnonzero(counts) if i >= config.classes and i != bad]
    allowed = f"0..{config.classes - 1}" + (f" or {DONT_CARE} (don't care)" if config.dont_care else "")
    fix = _FIXES.get(config.preset, f"give ids of the {config.classes} classes of '{config.preset}'")
    if bad == DONT_CARE:
        fix = "this network has no class for 255 (don't care"
        fix += (
            "; in Cityscapes the license plate, -1): replace it by 0 (unlabeled) or 26 (car)"
            if (config.preset == "cityscapes")
            else "): replace it by the id of a class"
        )
    return LabelMapError(
        f"[label_map] expected ids {allowed} but got {bad} in {int(counts[bad])} pixels, first at item {item}, "
        f"row {row}, column {column}" + (f", and the ids {others}" if others else "") + f"; {fix}"
    )


def to_symbols(labels: Labels, edges: Edges | None, config: GeneratorConfig) -> Symbols:
    """Join checked labels and edges, each [N, H, W]: symbols uint16 [N, H, W], `label` or `2 label + edge`.

    `edges` is None exactly where the config reads none. Raises LabelMapError.
    """
    if (edges is not None) != config.instance_edges:
        raise LabelMapError(
            f"[symbols] expected edges to be {'given' if config.instance_edges else 'None'} for '{config.preset}' "
            f"but got {'None' if edges is None else 'edges'}; follow config.instance_edges"
        )
    symbols = labels.astype(np.uint16)
    if edges is not None:
        symbols *= 2
        symbols += edges
    return symbols


def prepare(labels: Labels, instances: Instances | None, config: GeneratorConfig) -> Symbols:
    """Check the maps of a request in every way, and make the symbols uint16 [N, H, W] that a generator reads.

    `labels` are uint8 [N, H, W]. `instances` are int32 [N, H, W] where config.instance_edges, else None. Raises
    LabelMapError.
    """
    _check_array("labels", labels, np.uint8)
    _check_instances(labels, instances, config)
    _check_size(labels.shape[1], labels.shape[2], config)
    return _symbols(labels, instances, config)


def _symbols(labels: Labels, instances: Instances | None, config: GeneratorConfig) -> Symbols:
    """Check the ids and make the symbols in one pass of a kernel."""
    made, known = symbols(labels, instances, config.classes, config.label_nc if config.dont_care else None)
    if not known:
        check_labels(labels, config)  # raises with the first bad id
    return made


def _check_array(name: str, array: npt.NDArray[Any], dtype: type[np.generic]) -> None:
    if array.dtype != dtype:
        raise LabelMapError(
            f"[label_map] expected {name} of dtype {np.dtype(dtype)} but got {array.dtype}; "
            "check the range, then convert with .astype"
        )
    if array.ndim != 3 or 0 in array.shape:
        raise LabelMapError(
            f"[label_map] expected {name} [N, H, W] with N, H and W at least 1 but got shape {list(array.shape)}; "
            "stack maps of one size, and give a single map as map[None]"
        )


def _check_instances(labels: Labels, instances: Instances | None, config: GeneratorConfig) -> None:
    if instances is None:
        if config.instance_edges:
            raise LabelMapError(
                f"[label_map] expected an instance map for '{config.preset}' but got none; "
                "give `instances` [N, H, W] (with no instances at hand: the label map itself, as int32)"
            )
        return
    if not config.instance_edges:
        raise LabelMapError(
            f"[label_map] expected no instance map, since '{config.preset}' does not read one, "
            f"but got shape {list(instances.shape)}; leave `instances` out"
        )
    _check_array("instances", instances, np.int32)
    if instances.shape != labels.shape:
        raise LabelMapError(
            f"[label_map] expected instances of the labels' shape {list(labels.shape)} but got "
            f"{list(instances.shape)}; resize both with NEAREST to one size"
        )


def _check_size(height: int, width: int, config: GeneratorConfig) -> None:
    if config.style and (height, width) != (config.height, config.width):
        raise LabelMapError(
            f"[label_map] expected {config.height}x{config.width} (height x width; fixed for a generator with a style "
            f"vector) but got {height}x{width}; use resize_nearest_centred(map, {config.height}, {config.width})"
        )
    try:
        level_sizes(height, width, config.upsamplings)
    except ConfigError as error:
        raise LabelMapError(
            f"[label_map] {str(error).removeprefix('[config] ')}; resize with NEAREST, never smoothed"
        ) from None


def _first(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))
