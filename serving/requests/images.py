"""The files of `spade_image`: PNG maps are decoded to the model's size, and images are encoded."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from spade_core.config import GeneratorConfig
from spade_core.files.whole_file import write_whole
from spade_core.maps.colours import RGB, ColourTable, class_names
from spade_core.maps.label_maps import (
    LabelMapError,
    check_pair,
    read_instance_map,
    read_label_map,
    resize_nearest_centred,
)
from spade_core.types import Images

MAX_BYTES = 16 << 20  # of one label or instance map file
MAX_COLOURS = 1 << 16  # characters of a colour table in a request
MAX_FILE_PIXELS = 1 << 24  # of one label or instance map; the header tells before anything is unpacked

FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}  # the suffix of each format
# format: (Pillow's name, default quality)
_FORMATS: dict[str, tuple[str, int | None]] = {"png": ("PNG", None), "jpeg": ("JPEG", 90), "webp": ("WEBP", 90)}


@dataclass(frozen=True)
class Encoding:
    """An image file format. `quality` 1..100; None for png, which is lossless."""

    format: str
    quality: int | None


def read_encoding(parameters: Mapping[str, Any]) -> Encoding:
    """Read the request parameters `format` (default png) and `quality`. Raises ValueError."""
    name = parameters.get("format", "png")
    if name not in _FORMATS:
        raise ValueError(f"[spade_image] expected format {', '.join(_FORMATS)} but got {name!r}")
    quality = parameters.get("quality", _FORMATS[name][1])
    if quality is None:
        return Encoding(name, None)
    if name == "png":
        raise ValueError(f"[spade_image] expected no quality with format png, which is lossless, but got {quality!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"[spade_image] expected quality as an integer 1..100 but got {quality!r}")
    return Encoding(name, quality)


Palette = tuple[RGB, ...]
"""The colour of each class of a model, don't care included."""


def as_palette(colours: npt.ArrayLike) -> Palette:
    """The colours [classes, 3] of a model's classes."""
    return tuple((int(r), int(g), int(b)) for r, g, b in np.asarray(colours))


OWN_COLOURS = "model"
"""A value of the request parameter `colours`: the colours of the model's own classes (`ModelInfo.class_colours`)."""


def read_colours(parameters: Mapping[str, Any], config: GeneratorConfig, palette: Palette) -> ColourTable | None:
    """Read the request parameter `colours`, the text of a colour table (CSV or JSON) or `model`. Raises ValueError.

    `palette`: the colours of the model's own classes.
    """
    text = parameters.get("colours")
    if text is None:
        return None
    if text == OWN_COLOURS:
        return own_colours(config, palette)
    if not isinstance(text, str) or len(text) > MAX_COLOURS:
        got = f"{len(text)} characters" if isinstance(text, str) else repr(text)
        raise ValueError(
            f"[spade_image] expected colours as the text of a colour table of at most {MAX_COLOURS} characters "
            f"but got {got}"
        )
    return _colour_table(text)


@lru_cache(maxsize=4)
def own_colours(config: GeneratorConfig, palette: Palette) -> ColourTable:
    """The table of the colours that draw the model's classes; of classes with one colour, the first."""
    ids: dict[RGB, int] = {}
    for label, colour in enumerate(palette):
        ids.setdefault(colour, 255 if label == config.label_nc else label)  # don't care is 255 in a file
    names = class_names(config)
    return ColourTable(
        tuple(ids.values()), tuple(ids), tuple(names[min(label, config.label_nc)] for label in ids.values())
    )


_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)


def read_size(parameters: Mapping[str, Any], config: GeneratorConfig, max_pixels: int) -> tuple[int, int]:
    """Read the request parameter `size`, WIDTHxHEIGHT; default: the model's size. Returns (height, width).

    Raises ValueError for a text that is no size or has too many pixels. The engine refuses a size that is not its own.
    """
    text = parameters.get("size", f"{config.width}x{config.height}")
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= width * height <= max_pixels:
        raise ValueError(
            f"[spade_image] expected size as WIDTHxHEIGHT of at most {max_pixels} pixels, such as "
            f"{config.width}x{config.height}, but got {text!r}"
        )
    if config.style and (height, width) != (config.height, config.width):
        raise ValueError(
            f"[spade_image] expected size {config.width}x{config.height} (fixed for a generator with a style vector) "
            f"but got {text}; leave it out"
        )
    return height, width


@lru_cache(maxsize=16)
def _colour_table(text: str) -> ColourTable:
    return ColourTable.parse(text, "the request parameter colours", is_json=text.lstrip().startswith(("[", "{")))


def decode_maps(
    label_maps: npt.NDArray[np.uint8],
    instance_maps: npt.NDArray[np.uint8] | None,
    config: GeneratorConfig,
    colours: ColourTable | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Decode PNG files [N, bytes] to the model's size: `labels` uint8 [N, H, W] and, if given, `instances` int32.

    `colours` looks up label maps in RGB. `size` (height, width) goes before the model's. Raises ValueError, which
    names the item.
    """
    height, width = size or (config.height, config.width)
    labels = _decode_all("label_map", label_maps, partial(read_label_map, colours=colours))
    maps = {"labels": _resized(labels, height, width)}
    if instance_maps is not None:
        instances = _decode_all("instance_map", instance_maps, read_instance_map)
        for item, pair in enumerate(zip(labels, instances, strict=False)):
            check_pair(*pair, f"instance_map {item}")
        maps["instances"] = _resized(instances, height, width)
    return maps


def _resized(maps: Sequence[npt.NDArray[Any]], height: int, width: int) -> npt.NDArray[Any]:
    return np.stack([resize_nearest_centred(one, height, width) for one in maps])


def _decode_all(name: str, files: npt.NDArray[np.uint8], read: Any) -> list[npt.NDArray[Any]]:
    # The last bytes of a PNG file are a checksum, which is never 0: zeros at the end are padding.
    return [_decode(f"{name} {item}", row.tobytes().rstrip(b"\0"), read) for item, row in enumerate(files)]


def _decode(name: str, data: bytes, read: Any) -> npt.NDArray[Any]:
    if len(data) > MAX_BYTES:
        raise LabelMapError(
            f"[spade_image] expected {name} of at most {MAX_BYTES} bytes but got {len(data)}; "
            "save it as a grey or palette PNG, which is smaller"
        )
    try:
        decoded: npt.NDArray[Any] = read(data, max_pixels=MAX_FILE_PIXELS)
    except LabelMapError as error:
        raise LabelMapError(f"[spade_image] {name}: {error}") from error
    return decoded


def encode_images(images: Images, encoding: Encoding) -> Sequence[bytes]:
    """Encode images [N, H, W, 3] as N files."""
    return [_encode(image, encoding) for image in images]


def write_image(path: Path, data: bytes) -> None:
    """Write an image file whole or not at all, so that an interrupted run leaves no half image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda draft: draft.write_bytes(data))


def _encode(image: npt.NDArray[np.uint8], encoding: Encoding) -> bytes:
    file = io.BytesIO()
    # Level 1 of PNG: higher levels take several times as long, and hardly shrink images, which are like noise.
    options = {"compress_level": 1} if encoding.quality is None else {"quality": encoding.quality}
    Image.fromarray(image).save(file, _FORMATS[encoding.format][0], **options)
    return file.getvalue()
