"""The contract of every engine: checked inputs in, images out."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.rectangles import EMPTY, Rectangle
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style
from spade_core.types import Images, Instances, Labels, Style, Symbols

Pixels = npt.NDArray[np.uint8]


class DeviceLostError(RuntimeError):
    """The GPU refuses all further work of this process, which must end. The message says what CUDA reports."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The checked inputs of N images of one size. `check_inputs` makes them from the arrays of a request.

    Attributes:
        labels: uint8 [N, H, W], as the request holds them.
        instances: int32 [N, H, W] where the model reads instance edges, else None.
        symbols: uint16 [N, H, W], made from labels and instances.
        style: float32 [N, 256] where the model has a style input, else None.
    """

    labels: Labels
    instances: Instances | None
    symbols: Symbols
    style: Style | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        _, height, width = self.labels.shape
        return height, width

    def take(self, images: slice | list[int]) -> Inputs:
        """The inputs of some of the images."""
        return Inputs(
            self.labels[images],
            None if self.instances is None else self.instances[images],
            self.symbols[images],
            None if self.style is None else self.style[images],
        )

    @classmethod
    def join(cls, parts: Sequence[Inputs]) -> Inputs:
        """One batch of inputs of equal size for the same model. A single part is not copied."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.labels for part in parts]),
            _joined([part.instances for part in parts]),
            np.concatenate([part.symbols for part in parts]),
            _joined([part.style for part in parts]),
        )


def _joined(arrays: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """All arrays, or None: whether an input exists depends on the model, so all parts have the input or none has."""
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def check_inputs(labels: Labels, instances: Instances | None, style: Style | None, config: GeneratorConfig) -> Inputs:
    """Check the arrays of a request and make its symbols.

    Args:
        labels: uint8 [N, H, W], ids 0 .. label_nc - 1, or 255 where `config.dont_care`.
        instances: int32 [N, H, W], exactly where `config.instance_edges`.
        style: float32 [N, 256], finite, exactly where `config.style`.

    Raises ValueError, naming the first value that is wrong.
    """
    symbols = prepare(labels, instances, config)
    return Inputs(labels, instances, symbols, check_style(style, len(symbols), config))


class Engine(ABC):
    """The interface of every engine (torch, cpu, tensorrt).

    Attributes:
        config: the architecture that the weights were made for.
        name: `torch`, `cpu` or `tensorrt`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        max_concurrent_calls: 2 where a device draws one batch while the host prepares the next, else 1.
    """

    config: GeneratorConfig
    name: str
    precision: str
    max_concurrent_calls: int = 1

    @abstractmethod
    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        """Checked inputs of N images -> images uint8 [N, H, W, 3]. Adds to `timings`."""

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3]: `check_inputs`, then `run`. Raises ValueError."""
        return self.run(check_inputs(labels, instances, style, self.config), timings)

    def open(
        self, labels: Labels, instances: Instances | None = None, style: Style | None = None,
        timings: Timings | None = None,
    ) -> Session:  # fmt: skip
        """Draw a label map [1, H, W] that will be edited, and return its session. Raises ValueError."""
        session = self.session()
        session.draw(check_inputs(labels, instances, style, self.config), timings)
        return session

    def session(self) -> Session:
        """A session that has drawn nothing yet; an engine with a faster kind than `Session` returns that kind."""
        return Session(self)


class Session:
    """One label map that is drawn again while it changes. Every image has the bits of `Engine.run` on its map alone.

    This kind draws each change anew. A session keeps its last map and image. Calls from several threads take turns.

    Args:
        engine: draws the images.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._inputs: Inputs | None = None
        self._image: Pixels = np.zeros((0, 0, 3), np.uint8)

    @property
    def inputs(self) -> Inputs:
        """The last map, [1, H, W], and its style. Raises ValueError before the first drawing."""
        if self._inputs is None:
            raise ValueError("[session] expected a session that has drawn a map but got a new one; call draw first")
        return self._inputs

    @property
    def image(self) -> Pixels:
        """The last image, uint8 [H, W, 3], read-only."""
        return self._image

    def draw(self, inputs: Inputs, timings: Timings | None = None) -> tuple[Pixels, Rectangle]:
        """Draw a map of any size, which may differ from the last map anywhere.

        Returns the image uint8 [H, W, 3], read-only, and a rectangle outside which it equals the last image. Raises
        ValueError unless the inputs hold one map.
        """
        if len(inputs) != 1:
            raise ValueError(f"[session] expected one label map but got {len(inputs)}; open a session for each")
        with self._lock:
            image, changed = self._draw(inputs, timings or Timings())
            image.flags.writeable = False
            self._inputs, self._image = _owned(inputs), image
        return image, changed

    def edit(
        self, rectangle: Rectangle, labels: Labels, instances: Instances | None = None, timings: Timings | None = None
    ) -> tuple[Pixels, Rectangle]:
        """Replace a rectangle of the map, and draw.

        Args:
            rectangle: within the map.
            labels: uint8 [h, w], the new labels.
            instances: int32 [h, w], the new instances; None keeps the old ones.

        Returns what `draw` returns. Raises ValueError.
        """
        with self._lock:
            old = self.inputs
            new_labels = _pasted("labels", old.labels, rectangle, labels)
            new_instances = old.instances
            if instances is not None:
                if new_instances is None:
                    raise ValueError(
                        "[session] expected no instances, since the model reads none, but got some; leave them out"
                    )
                new_instances = _pasted("instances", new_instances, rectangle, instances)
            symbols = prepare(new_labels, new_instances, self._engine.config)
            return self.draw(Inputs(new_labels, new_instances, symbols, old.style), timings)

    def restyle(self, style: Style, timings: Timings | None = None) -> tuple[Pixels, Rectangle]:
        """Draw the same map in another style, float32 [1, 256]. Returns what `draw` returns. Raises ValueError."""
        with self._lock:
            checked = check_style(style, 1, self._engine.config)
            return self.draw(replace(self.inputs, style=checked), timings)

    def _draw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle]:
        """What `draw` returns, for one map. The caller holds the session's lock."""
        image = self._engine.run(inputs, timings)[0]
        return image, changed_rectangle(self._image, image)


def _owned(inputs: Inputs) -> Inputs:
    """The same inputs in memory of their own: a request's arrays may lie in a buffer that the server uses again."""
    return Inputs(
        inputs.labels.copy(),
        None if inputs.instances is None else inputs.instances.copy(),
        inputs.symbols,
        None if inputs.style is None else inputs.style.copy(),
    )


def changed_rectangle(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Rectangle:
    """The smallest rectangle that holds every pixel that differs, for arrays [H, W] or [H, W, C]; sizes may differ."""
    if before.shape != after.shape:
        return Rectangle.whole(*after.shape[:2])
    differs = before != after
    if differs.ndim == 3:
        differs = differs.any(axis=2)
    rows = np.flatnonzero(differs.any(axis=1))
    if not len(rows):
        return EMPTY
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(differs[top:bottom].any(axis=0))
    return Rectangle(top, int(columns[0]), bottom, int(columns[-1]) + 1)


def _pasted(name: str, maps: npt.NDArray[Any], rectangle: Rectangle, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of maps [1, H, W] with `part` in a rectangle."""
    height, width = maps.shape[1:]
    top, left, bottom, right = rectangle
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"[session] expected a rectangle within the map of {height}x{width}, not empty, but got rows {top} to "
            f"{bottom} and columns {left} to {right}"
        )
    if part.dtype != maps.dtype or part.shape != (bottom - top, right - left):
        raise ValueError(
            f"[session] expected {name} {maps.dtype} {[bottom - top, right - left]}, as the rectangle is, but got "
            f"{part.dtype} {list(part.shape)}"
        )
    pasted = maps.copy()
    pasted[0, top:bottom, left:right] = part
    return pasted
