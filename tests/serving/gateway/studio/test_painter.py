"""The painter in a real browser against its NumPy twin, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import raster_twin as twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

from serving.gateway.rle import decode_runs, encode_runs

pytestmark = pytest.mark.xdist_group("chromium")

HEIGHT, WIDTH = 19, 23
point = st.tuples(st.integers(-6, WIDTH + 6), st.integers(-6, HEIGHT + 6))
inside = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1))
labels_of = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
)
few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

SHAPE = """async ([name, size, given]) => {
    const raster = await import("/painter/raster.js");
    const mask = new Array(size.width * size.height).fill(false);
    raster[name](size, ...given, (y, start, end) => mask.fill(true, y * size.width + start, y * size.width + end));
    return mask;
}"""


def shape(modules: Page, name: str, *given: Any) -> npt.NDArray[np.bool_]:
    mask = modules.evaluate(SHAPE, [name, {"width": WIDTH, "height": HEIGHT}, list(given)])
    return np.array(mask, bool).reshape(HEIGHT, WIDTH)


@few
@given(point, point, st.integers(1, 15))
def test_a_brush_stroke_is_the_pixels_near_its_line(modules: Page, a: Any, b: Any, diameter: int) -> None:
    expected = twin.segment(HEIGHT, WIDTH, a, b, diameter)
    np.testing.assert_array_equal(shape(modules, "segment", *a, *b, diameter), expected)


@few
@given(point, point)
def test_a_rectangle_has_both_its_corners(modules: Page, a: Any, b: Any) -> None:
    np.testing.assert_array_equal(shape(modules, "rectangle", *a, *b), twin.rectangle(HEIGHT, WIDTH, a, b))


@few
@given(st.lists(point, min_size=1, max_size=7))
def test_a_polygon_is_its_inside_and_its_outline(modules: Page, points: Any) -> None:
    np.testing.assert_array_equal(shape(modules, "polygon", points), twin.polygon(HEIGHT, WIDTH, points))


FLOOD = """async ([width, height, labels, locked, x, y]) => {
    const { flood } = await import("/painter/raster.js");
    const mask = new Array(width * height).fill(false);
    flood({ width, height }, Uint8Array.from(labels), x, y, (at) => !locked[at],
        (row, start, end) => mask.fill(true, row * width + start, row * width + end));
    return mask;
}"""


@few
@given(labels_of, labels_of, inside)
def test_a_flood_fills_connected_pixels_of_one_label(modules: Page, labels: Any, locks: Any, at: Any) -> None:
    locked = locks == 0
    given_values = [WIDTH, HEIGHT, labels.ravel().tolist(), locked.ravel().tolist(), *at]
    mask = np.array(modules.evaluate(FLOOD, given_values), bool).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(mask, twin.flood(labels, at, locked))


CODE = """async (bytes) => {
    const { encode, decode } = await import("/painter/rle.js");
    const code = encode(Uint8Array.from(bytes));
    return [[...code], [...decode(code, bytes.length)]];
}"""


@few
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 40)), min_size=1, max_size=30))
def test_runs_are_the_same_in_the_browser_and_in_the_gateway(modules: Page, runs: Any) -> None:
    labels = np.repeat([label for label, _ in runs], [count for _, count in runs]).astype(np.uint8)
    code, decoded = modules.evaluate(CODE, labels.tolist())
    assert bytes(code) == encode_runs(labels)
    assert decoded == labels.tolist() == decode_runs(bytes(code), 1, len(labels))[0].tolist()


def test_a_run_longer_than_a_count_is_split(modules: Page) -> None:
    labels = np.full((300, 500), 7, np.uint8)
    code = modules.evaluate("async () => [...(await import('/painter/rle.js')).encode(new Uint8Array(150000).fill(7))]")
    assert len(code) == 3 * 3
    assert bytes(code) == encode_runs(labels)
    np.testing.assert_array_equal(decode_runs(bytes(code), 300, 500), labels)


def test_runs_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[live\] expected runs of 1\.\.65535 pixels, together 6 .* together 4"):
        decode_runs(bytes([1, 4, 0]), 2, 3)
    with pytest.raises(ValueError, match=r"\[live\] expected runs of 3 bytes .* but got 2 bytes"):
        decode_runs(bytes([1, 4]), 2, 3)


PAINT = """async ([width, height, labels, steps]) => {
    const { Painting, ERASE } = await import("/painter/painting.js");
    const { segment, flood } = await import("/painter/raster.js");
    const painting = new Painting(width, height, Uint8Array.from(labels));
    const states = [];
    for (const [action, x, y, x1, y1, diameter, paint] of steps) {
        if (action === "lock") painting.setLock(true);
        else if (action === "unlock") painting.setLock(false);
        else if (action === "undo") painting.undo();
        else if (action === "redo") painting.redo();
        else {
            painting.begin(action);
            const value = action === "erase" ? ERASE : paint;
            if (action === "fill") {
                painting.paint((emit) => flood(painting, painting.labels, x, y, painting.open, emit), value);
            } else painting.paint((emit) => segment(painting, x, y, x1, y1, diameter, emit), value);
            painting.end();
        }
        states.push([...painting.labels]);
    }
    const far = (step) => { while (painting[step]() !== null); return [...painting.labels]; };
    return [states, far("redo"), far("undo"), far("redo")];
}"""

step = st.tuples(
    st.sampled_from(["brush", "brush", "erase", "fill", "lock", "unlock", "undo", "redo"]),
    *(st.integers(0, 18) for _ in range(4)),
    st.integers(1, 9),
    st.integers(0, 4),
)


@few
@given(labels_of, st.lists(step, max_size=12))
def test_a_painting_is_what_its_twin_paints_and_undo_is_exact(modules: Page, labels: Any, steps: Any) -> None:
    states, last, first, again = modules.evaluate(PAINT, [WIDTH, HEIGHT, labels.ravel().tolist(), steps])
    expected = _painted(labels, steps)
    for state, wanted in zip(states, expected, strict=True):
        np.testing.assert_array_equal(np.array(state).reshape(HEIGHT, WIDTH), wanted)
    assert first == labels.ravel().tolist()
    assert again == last


def _painted(labels: Any, steps: Any) -> list[Any]:
    """The map after each step, by whole copies: a step that changes nothing is no step to undo."""
    now = (labels.copy(), np.zeros(labels.shape, bool))
    locked = np.zeros(labels.shape, bool)
    done: list[Any] = []
    undone: list[Any] = []
    states = []
    for action, x, y, x1, y1, diameter, paint in steps:
        if action in ("lock", "unlock"):
            locked = now[1].copy() if action == "lock" else np.zeros_like(locked)
        elif action in ("undo", "redo"):
            source, other = (done, undone) if action == "undo" else (undone, done)
            if source:
                other.append(now)
                now = source.pop()
        else:
            if action == "fill":
                mask = twin.flood(now[0], (x, y), locked)
            else:
                mask = twin.segment(HEIGHT, WIDTH, (x, y), (x1, y1), diameter) & ~locked
            after = (np.where(mask, labels if action == "erase" else np.uint8(paint), now[0]),
                     np.where(mask, action != "erase", now[1]))  # fmt: skip
            if (after[0] != now[0]).any() or (after[1] != now[1]).any():
                done, undone, now = [*done, now], [], after
        states.append(now[0])
    return states
