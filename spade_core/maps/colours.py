"""Colours of classes: tables that turn RGB label maps into ids, and palettes that draw label maps."""

from __future__ import annotations

import colorsys
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.config import GeneratorConfig

RGB = tuple[int, int, int]
PALETTE = "palette"  # field of a checkpoint's metadata


class ColourTableError(ValueError):
    """A colour table cannot be used. The message holds the line, the value and how to mend the table."""


@dataclass(frozen=True)
class ColourTable:
    """The ids that colours stand for. An id may have several colours; a colour has one id.

    Attributes:
        ids: class ids, 0..255.
        colours: (red, green, blue) of each, 0..255.
        names: class name of each, may be empty.
    """

    ids: tuple[int, ...]
    colours: tuple[RGB, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.colours) == len(self.names) or not self.ids:
            raise ColourTableError(
                f"[colours] expected as many ids as colours and names, and at least one, but got {len(self.ids)} ids, "
                f"{len(self.colours)} colours, {len(self.names)} names; give one of each per class"
            )
        seen: dict[RGB, int] = {}
        for label, colour in zip(self.ids, self.colours, strict=True):
            for value in (label, *colour):
                if type(value) is not int or not 0 <= value <= 255:
                    raise ColourTableError(
                        f"[colours] expected id, r, g and b in 0..255 but got {value!r} for id {label}; correct it"
                    )
            if colour in seen:
                raise ColourTableError(
                    f"[colours] expected one id per colour but got {colour} for the ids {seen[colour]} and {label}; "
                    "keep one of the two"
                )
            seen[colour] = label

    @staticmethod
    def load(path: Path) -> ColourTable:
        """Read a `.csv` file (header id,r,g,b,name) or a `.json` file (such objects). Raises ColourTableError."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ColourTableError(
                f"[colours] expected a UTF-8 text file but got '{path}': {error}; check the path and the encoding"
            ) from None
        return ColourTable.parse(text, f"'{path}'", is_json=path.suffix.lower() == ".json")

    @staticmethod
    def parse(text: str, where: str, *, is_json: bool) -> ColourTable:
        """Read a table from text, JSON or CSV. `where` names the text in errors. Raises ColourTableError."""
        rows = _json_rows(text, where) if is_json else _csv_rows(text, where)
        parsed = [_row(place, row) for place, row in rows]
        return ColourTable(tuple(r[0] for r in parsed), tuple(r[1] for r in parsed), tuple(r[2] for r in parsed))

    def recoloured(self, colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A palette uint8 [n, 3] with the table's colours, each id's first, for the ids below n."""
        colours = colours.copy()
        # Going backwards leaves each id its first colour.
        for label, colour in reversed(list(zip(self.ids, self.colours, strict=True))):
            if label < len(colours):
                colours[label] = colour
        return colours

    def ids_of(self, rgb: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Look RGB uint8 [H, W, 3] up: ids uint8 [H, W], and bool [H, W]: the table has the colour. Where not, id 0."""
        codes = np.array([r << 16 | g << 8 | b for r, g, b in self.colours], np.uint32)
        order = np.argsort(codes)
        codes, ids = codes[order], np.array(self.ids, np.uint8)[order]
        wide = rgb.astype(np.uint32)
        pixels = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]  # [H, W]
        at = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
        known = codes[at] == pixels
        return np.where(known, ids[at], np.uint8(0)), known


def _csv_rows(text: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    missing = {"id", "r", "g", "b"} - set(reader.fieldnames or ())
    if missing:
        raise ColourTableError(
            f"[colours] expected the CSV header id,r,g,b,name in {where} but got {reader.fieldnames}, "
            f"without {sorted(missing)}; write it as the first line"
        )
    return [(f"{where}, line {reader.line_num}", row) for row in reader]


def _json_rows(text: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ColourTableError(f"[colours] expected JSON in {where} but got {error}; correct the file") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ColourTableError(
            f"[colours] expected a list of objects with id, r, g, b and name in {where} "
            f"but got {text[:40]!r}; write a list"
        )
    return [(f"{where}, entry {i}", row) for i, row in enumerate(rows)]


def _row(where: str, row: dict[str, Any]) -> tuple[int, RGB, str]:
    values = []
    for key in ("id", "r", "g", "b"):
        try:
            values.append(int(str(row.get(key)).strip()))
        except ValueError:
            raise ColourTableError(
                f"[colours] expected a whole number for '{key}' in {where} but got {row.get(key)!r}; correct the table"
            ) from None
    return values[0], (values[1], values[2], values[3]), str(row.get("name") or "").strip()


def palette(n: int) -> npt.NDArray[np.uint8]:
    """Make n distinct colours uint8 [n, 3], always the same: hues a golden angle apart, in rings of lightness."""
    colours: dict[RGB, None] = {}
    i = 0
    while len(colours) < n:
        r, g, b = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.55, 0.4, 0.7, 0.3, 0.8)[i % 5], (0.65, 0.9, 0.4)[i % 3])
        colours.setdefault((round(255 * r), round(255 * g), round(255 * b)))
        i += 1
    return np.array(list(colours), np.uint8).reshape(n, 3)


DEMO_COLOURS = Path(__file__).with_name("demo_colours.csv")
"""The colour table of the demo model's classes, a file to copy and to give as `--colours`."""


def _demo_classes() -> tuple[tuple[str, RGB], ...]:
    table = ColourTable.load(DEMO_COLOURS)
    return tuple(zip(table.names, table.colours, strict=True))


DEMO_CLASSES: tuple[tuple[str, RGB], ...] = _demo_classes()

# The public labelIds of Cityscapes. -1 (license plate) has no id in a uint8 file. 34 has a channel, but is in no file.
CITYSCAPES_CLASSES: tuple[tuple[str, RGB], ...] = (
    ("unlabeled", (0, 0, 0)),
    ("ego vehicle", (0, 0, 0)),
    ("rectification border", (0, 0, 0)),
    ("out of roi", (0, 0, 0)),
    ("static", (0, 0, 0)),
    ("dynamic", (111, 74, 0)),
    ("ground", (81, 0, 81)),
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("parking", (250, 170, 160)),
    ("rail track", (230, 150, 140)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("guard rail", (180, 165, 180)),
    ("bridge", (150, 100, 100)),
    ("tunnel", (150, 120, 90)),
    ("pole", (153, 153, 153)),
    ("polegroup", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("caravan", (0, 0, 90)),
    ("trailer", (0, 0, 110)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
    ("unused", (255, 255, 255)),
)

CLASSES = {"demo": DEMO_CLASSES, "cityscapes": CITYSCAPES_CLASSES}


def class_names(config: GeneratorConfig) -> tuple[str, ...]:
    """Name every class of the network, don't care included: own names, the preset's, or `class 0`, `class 1`, .."""
    known = CLASSES.get(config.preset, ())
    if not config.class_names and len(known) == config.classes:
        return tuple(name for name, _ in known)
    names = config.class_names or tuple(f"class {i}" for i in range(config.label_nc))
    return (*names, "don't care") if config.dont_care else names


def class_palette(config: GeneratorConfig, table: ColourTable | None = None) -> npt.NDArray[np.uint8]:
    """Choose drawing colours uint8 [classes, 3]: natural or public ones where the preset has them, else `palette`.

    The colours of `table` replace them, id by id.
    """
    known = CLASSES.get(config.preset, ())
    if not config.class_names and len(known) == config.classes:
        colours = np.array([colour for _, colour in known], np.uint8)
    else:
        colours = palette(config.classes)
    return colours if table is None else table.recoloured(colours)


def saved_palette(config: GeneratorConfig, metadata: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    """Choose drawing colours uint8 [classes, 3]: the field `palette` of a checkpoint's metadata, else `class_palette`.

    Training with an own colour table writes the field, a JSON list of (red, green, blue). Raises ColourTableError.
    """
    text = metadata.get(PALETTE)
    if text is None:
        return class_palette(config)
    try:
        colours = np.array(json.loads(text))
    except ValueError:
        colours = np.array(())
    if colours.shape != (config.classes, 3) or colours.dtype.kind != "i" or colours.min() < 0 or colours.max() > 255:
        raise ColourTableError(
            f"[colours] expected {config.classes} colours of three values 0..255 in the checkpoint's field {PALETTE!r} "
            f"but got {text[:40]!r}; train again, or remove the field"
        )
    return colours.astype(np.uint8)


def draw(labels: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour ids uint8 [.., H, W] with a palette uint8 [n, 3]: RGB uint8 [.., H, W, 3]. Ids of n and more are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table[labels]
