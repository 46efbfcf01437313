"""What a request for images asks for: its fields, checked and completed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serving.gateway.problems import Problem
from serving.gateway.uploads import Form
from serving.protocol import DEFAULT_STYLE, ModelInfo

STYLE_VALUES = 256
_MAX_SEED = 2**63 - 1
FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, eq=False)
class Order:
    """The images of one label map.

    Attributes:
        label_map, instance_map: PNG files.
        seeds: the seed of each image, where the model has a style input and no style is given.
        styles: float32 [N, 256], or None.
        count: images.
        format, quality: of the files; quality None for the format's own.
        size: WIDTHxHEIGHT, or None for the model's.
        colours: the text of a colour table, or `model`.
        deadline_s: when the answer must be there, or None.
        style_image: an image file whose style is not known yet: see `styled`.
    """

    label_map: bytes
    instance_map: bytes | None
    seeds: tuple[int, ...] | None
    styles: npt.NDArray[np.float32] | None
    count: int
    format: str
    quality: int | None
    size: str | None
    colours: str
    deadline_s: float | None
    style_image: bytes | None = None

    def styled(self, style: npt.NDArray[np.float32]) -> Order:
        """The order with the style [1, 256] of its photo."""
        return replace(self, styles=np.repeat(style, self.count, axis=0), style_image=None)

    def parameters(self) -> dict[str, bool | int | str]:
        """The parameters of `spade_image`."""
        chosen = {"format": self.format, "quality": self.quality, "size": self.size, "colours": self.colours}
        return {name: value for name, value in chosen.items() if value is not None}

    def tensors(self, part: slice) -> dict[str, npt.NDArray[np.uint8 | np.int64 | np.float32]]:
        """The inputs of `spade_image` for some of the images."""
        count = len(range(self.count)[part])
        tensors: dict[str, npt.NDArray[np.uint8 | np.int64 | np.float32]] = {
            "label_map": _repeated(self.label_map, count)
        }
        if self.instance_map is not None:
            tensors["instance_map"] = _repeated(self.instance_map, count)
        if self.styles is not None:
            tensors["style"] = self.styles[part]
        elif self.seeds is not None:
            tensors["seed"] = np.array(self.seeds[part], np.int64)[:, None]
        return tensors


def _repeated(file: bytes, count: int) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(np.frombuffer(file, np.uint8), (count, len(file)))


FIELDS = (
    "label_map", "instance_map", "style_image", "style", "style_name", "seed", "count", "format", "quality", "size",
    "colours", "timeout",
)  # fmt: skip


def order_of_form(form: Form, info: ModelInfo, max_count: int, preferred: str) -> Order:
    """The order of a form of `FIELDS`. `preferred` is the format where the form names none. Raises Problem."""
    if unknown := [name for name in form.names() if name not in FIELDS]:
        raise _wrong(f"expected fields out of {', '.join(FIELDS)} but got {', '.join(map(repr, unknown))}")
    return order(
        _one_file(form, "label_map"), _optional_file(form, "instance_map"), _optional_file(form, "style_image"), info,
        max_count, preferred, {name: form.text(name) for name in FIELDS[3:]},
    )  # fmt: skip


def order(
    label_map: bytes,
    instance_map: bytes | None,
    style_image: bytes | None,
    info: ModelInfo,
    max_count: int,
    preferred: str,
    texts: Mapping[str, str | None],
) -> Order:
    """The order of a map and of fields as texts. Raises Problem."""
    if not label_map:
        raise _wrong("expected a PNG label map but got an empty file")
    if sum(texts.get(field) is not None for field in ("style", "style_name", "seed")) > 1:
        raise _wrong("expected one of style, style_name and seed but got several; leave the others out")
    styles = _chosen_styles(texts, style_image is not None, info)
    count = _whole(texts, "count", 1, max_count, len(styles) if styles is not None else 1)
    seed = None if texts.get("seed") is None else _whole(texts, "seed", 0, _MAX_SEED - count, 0)
    if styles is not None:
        if len(styles) == 1:
            styles = np.repeat(styles, count, axis=0)
        elif len(styles) != count:
            raise _wrong(f"expected as many styles as count, {count}, but got {len(styles)}; leave count out")
    if style_image is not None and (styles is not None or seed is not None):
        raise _wrong("expected one of style_image, style and seed but got several; leave the others out")
    if style_image is not None and not info.style:
        raise no_style_input(info)
    if not info.style and (count > 1):
        raise _wrong(f"expected count 1, since model {info.preset!r} has no style input, but got {count}")
    drawn = styles is None and style_image is None and (seed is not None or info.style)
    seeds = range(seed or 0, (seed or 0) + count) if drawn else None
    return Order(
        label_map, instance_map, None if seeds is None else tuple(seeds), styles, count,
        _format(texts.get("format"), preferred),
        _whole(texts, "quality", 1, 100, 0) if texts.get("quality") is not None else None,
        None if texts.get("size") == "auto" else texts.get("size"),
        texts.get("colours") or "model",
        _seconds(texts.get("timeout")),
        style_image,
    )  # fmt: skip


def _format(text: str | None, preferred: str) -> str:
    if text is not None and text not in FORMATS:
        raise _wrong(f"expected format {', '.join(FORMATS)} but got {text!r}")
    return text or preferred


def _one_file(form: Form, name: str) -> bytes:
    found = form.files(name)
    if len(found) != 1:
        raise _wrong(f"expected one file {name!r} but got {len(found)}; send one label map a request")
    return found[0]


def _optional_file(form: Form, name: str) -> bytes | None:
    return _one_file(form, name) if form.files(name) else None


def _whole(texts: Mapping[str, str | None], name: str, least: int, most: int, default: int) -> int:
    text = texts.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or not least <= int(text) <= most:
        raise _wrong(f"expected {name} as a whole number {least}..{most} but got {text[:40]!r}")
    return int(text)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise _wrong(f"expected timeout as seconds above 0 and at most 3600 but got {text[:40]!r}")
    return seconds


def _chosen_styles(texts: Mapping[str, str | None], photo: bool, info: ModelInfo) -> npt.NDArray[np.float32] | None:
    """The styles of the fields `style` and `style_name`; without any field, one image has the default style.

    None where seeds or a photo give the styles.
    """
    styles, name = _styles(texts.get("style")), texts.get("style_name")
    chosen = photo or styles is not None or any(texts.get(field) is not None for field in ("seed", "count"))
    if name is None and (chosen or not info.styles):
        return styles
    named = info.named_styles()
    if name is None:
        return named[DEFAULT_STYLE][None] if DEFAULT_STYLE in named else None
    if name not in named:
        raise _wrong(f"expected style_name out of {', '.join(named) or 'none'} but got {name[:40]!r}")
    return named[name][None]


def _styles(text: str | None) -> npt.NDArray[np.float32] | None:
    """A JSON list of 256 numbers, or a list of such lists."""
    if text is None:
        return None
    try:
        values = np.array(json.loads(text), np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _wrong(f"expected style as a JSON list of {STYLE_VALUES} numbers but got {text[:40]!r}") from None
    rows = values[None] if values.ndim == 1 else values
    if rows.ndim != 2 or rows.shape[1] != STYLE_VALUES or len(rows) == 0:
        raise _wrong(
            f"expected style as a JSON list of {STYLE_VALUES} numbers, or several in a list, but got the shape "
            f"{list(values.shape)}"
        )
    if not np.isfinite(rows).all():
        raise _wrong("expected a finite style but got a number that is not")
    return rows


def no_style_input(info: ModelInfo) -> Problem:
    """The error of a style for a model that takes none."""
    return _wrong(f"expected no style_image, since model {info.preset!r} has no style input; leave it out")


def _wrong(text: str) -> Problem:
    return Problem("invalid-request", f"[synthesize] {text}")
