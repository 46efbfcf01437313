"""The rows of sessions in benchmarks.model: a session's first drawing, the same map again, and one stroke later."""

from __future__ import annotations

import time
from itertools import islice

import numpy as np

from benchmarks.common.maps import Maps
from benchmarks.common.stream import inputs_of
from benchmarks.editing.strokes import LENGTHS, edits
from serving.engines.contract import Engine, Pixels, Session, check_inputs
from spade_core.types import Array

KINDS = ("first", "repeat", "edit")
RADIUS = 4  # pixels, of the stroke


def session_turn(kind: str, engine: Engine, maps: Maps, first: int, repeats: int) -> tuple[list[float], Array]:
    """One turn of a session on map `first` of the stream: the seconds of each drawing, and the image of the map.

    `first` draws the map in a new session; `repeat` draws it again; `edit` draws it after a map that differs from it by
    one stroke, so that the image is of the map itself. One drawing before is not timed.
    """
    labels, instances, style = inputs_of(maps, first, 1)
    seed = first + 1
    (stroke,) = islice(edits([(labels, instances)], RADIUS, LENGTHS[RADIUS], engine.config, seed), 1)
    session, seconds, image = engine.session(), list[float](), np.zeros((0, 0, 3), np.uint8)
    for number in range(repeats + 1):
        if kind == "first":
            session = engine.session()
        elif kind == "edit":
            session.draw(check_inputs(*stroke.after, style, engine.config))
        image, took = _timed(session, labels, instances, style, engine)
        seconds += [took] if number else []
    return seconds, as_values(image)


def _timed(
    session: Session, labels: Array, instances: Array | None, style: Array | None, engine: Engine
) -> tuple[Pixels, float]:  # fmt: skip
    began = time.perf_counter()
    image, _ = session.draw(check_inputs(labels, instances, style, engine.config))
    return image, time.perf_counter() - began


def as_values(pixels: Array) -> Array:
    """Pixels uint8 [H, W, 3] as the images of a turn, float32 [1, 3, H, W] in -1..1; each is up to 1/128 too low."""
    values: Array = pixels.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    return values
