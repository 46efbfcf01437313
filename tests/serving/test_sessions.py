"""Sessions: a map that is drawn again while it changes has the bits of drawing each map anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generators import trained_like
from hypothesis import given
from hypothesis import strategies as st
from scraped import scrape_at_rest
from served import blocks

from kernels.rectangles import EMPTY, Rectangle
from serving.client.client import Client, ServerError
from serving.engines.contract import Engine, Session, changed_rectangle, check_inputs
from serving.engines.reference import TorchEngine
from serving.requests.batch import Done, RequestError
from serving.requests.sessions import SESSIONS, Sessions, check_session
from serving.triton.server import Server
from spade_core.config import preset
from spade_core.models.style import style_from_seed

CONFIG = replace(preset("coco"), label_nc=6, height=64, width=64, nf=4)
STYLED = replace(preset("demo"), height=64, width=64, nf=4)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return TorchEngine(trained_like(CONFIG))


@pytest.fixture(scope="module")
def styled() -> Engine:
    return TorchEngine(trained_like(STYLED))


def request(seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = blocks(seed, size=64, classes=6)
    return labels, (labels // 2).astype(np.int32)


def test_a_session_draws_edits_of_labels_and_instances(engine: Engine) -> None:
    labels, instances = request(0)
    session = engine.open(labels, instances)
    assert np.array_equal(session.image, engine.synthesize(labels, instances, None)[0])
    part = np.full((5, 9), 3, np.uint8)
    image, changed = session.edit(Rectangle(4, 6, 9, 15), part, part.astype(np.int32))
    labels[0, 4:9, 6:15], instances[0, 4:9, 6:15] = 3, 3
    assert np.array_equal(image, engine.synthesize(labels, instances, None)[0])
    assert changed.area
    assert image is session.image
    again, unchanged = session.edit(Rectangle(4, 6, 9, 15), part)
    assert np.array_equal(again, image)
    assert unchanged == EMPTY


def test_another_style_and_another_map_of_another_size(styled: Engine) -> None:
    labels, style = blocks(0, size=64), style_from_seed(1)[None]
    session = styled.open(labels, None, style_from_seed(0)[None])
    image, changed = session.restyle(style)
    assert np.array_equal(image, styled.synthesize(labels, None, style)[0])
    assert changed.area
    other = blocks(1, size=64)
    image, changed = session.draw(check_inputs(other, None, style, STYLED))
    assert np.array_equal(image, styled.synthesize(other, None, style)[0])


def test_the_image_cannot_be_written_and_the_caller_may_change_its_map(engine: Engine) -> None:
    labels, instances = request(0)
    session = engine.open(labels, instances)
    before = labels.copy()
    labels[:] = 0
    assert np.array_equal(session.inputs.labels, before)
    with pytest.raises(ValueError, match="read-only"):
        session.image[0] = 0


def test_errors_name_the_value_and_the_fix(engine: Engine, styled: Engine) -> None:
    labels, instances = request(0)
    with pytest.raises(ValueError, match=r"\[session\] expected a session that has drawn a map but got a new one"):
        engine.session().edit(Rectangle(0, 0, 1, 1), labels[0, :1, :1])
    with pytest.raises(ValueError, match=r"\[session\] expected one label map but got 2; open a session for each"):
        engine.open(labels.repeat(2, 0), instances.repeat(2, 0))
    session = engine.open(labels, instances)
    with pytest.raises(ValueError, match=r"within the map of 64x64, not empty, but got rows 60 to 65 and columns 0"):
        session.edit(Rectangle(60, 0, 65, 4), np.zeros((5, 4), np.uint8))
    with pytest.raises(
        ValueError, match=r"expected labels uint8 \[2, 4\], as the rectangle is, but got uint8 \[4, 2\]"
    ):
        session.edit(Rectangle(0, 0, 2, 4), np.zeros((4, 2), np.uint8))
    with pytest.raises(ValueError, match=r"got 99 .*row 1, column 2"):
        session.edit(Rectangle(1, 2, 2, 3), np.full((1, 1), 99, np.uint8))
    with pytest.raises(ValueError, match="no instances, since the model reads none"):
        styled.open(blocks(0, size=64), None, style_from_seed(0)[None]).edit(
            Rectangle(0, 0, 1, 1), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.int32)
        )
    assert np.array_equal(session.inputs.labels, labels), "a refused edit must not change the map"


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), max_size=4))
def test_the_changed_rectangle_is_the_smallest(pixels: list[tuple[int, int]]) -> None:
    before, after = np.zeros((2, 8, 10, 3), np.uint8)
    for y, x in pixels:
        after[y, x, 2] = 1
    found = changed_rectangle(before, after)
    expected = EMPTY
    for y, x in pixels:
        expected |= Rectangle(y, x, y + 1, x + 1)
    assert found == expected


def test_rectangles_grow_within_the_map_and_the_empty_one_stays_empty() -> None:
    assert Rectangle(1, 2, 3, 4).grown(2, 8, 5) == Rectangle(0, 0, 5, 5)
    assert EMPTY.grown(2, 8, 8) == EMPTY
    assert Rectangle(1, 2, 3, 4).upsampled(1) == Rectangle(2, 4, 6, 8)


# ---- By name ----


def test_names_are_checked() -> None:
    assert check_session(None, 8) is None
    assert check_session("a_B-9" + "x" * 59, 1) == "a_B-9" + "x" * 59
    for bad in ("", "x" * 65, "a b", "é", 7, True):
        with pytest.raises(RequestError, match="expected session as 1 to 64 characters out of A-Z"):
            check_session(bad, 1)
    with pytest.raises(RequestError, match="expected one label map in a request with a session but got 2"):
        check_session("a", 2)


def test_a_name_keeps_its_session_until_too_many_others_come(engine: Engine) -> None:
    heard: list[int] = []
    sessions = Sessions(engine, lambda _timings, size: heard.append(size))
    inputs = check_inputs(*request(0), None, CONFIG)
    first = sessions.run("a", inputs)
    assert isinstance(first, Done)
    assert np.array_equal(first.images, engine.run(inputs))
    assert heard == [1]
    kept = sessions._session("a")
    assert isinstance(kept, Session)
    for i in range(SESSIONS - 1):
        sessions._session(str(i))
    assert sessions._session("a") is kept
    for i in range(SESSIONS):
        sessions._session(str(i))
    assert sessions._session("a") is not kept


def test_an_error_is_the_answer_of_that_request_alone(engine: Engine) -> None:
    sessions = Sessions(engine, lambda _timings, _size: None)
    assert isinstance(sessions.run("a", check_inputs(*request(0), None, CONFIG).take(slice(0, 0))), ValueError)
    assert isinstance(sessions.run("a", check_inputs(*request(1), None, CONFIG)), Done)


def test_triton_draws_sessions_beside_batches(demo_server: Server) -> None:
    maps, before = blocks(3, 1), scrape_at_rest(demo_server)
    with Client(demo_server.grpc_url) as client:
        for step in range(3):
            maps = maps.copy()
            maps[0, 8 * step : 8 * step + 6, 40:60] = step
            plain = client.synthesize(maps).images
            drawn = client._infer("spade", {"labels": maps}, {"session": "painter-1"}).as_numpy("image")
            assert np.array_equal(drawn, plain)
        with pytest.raises(ServerError, match=r"\[spade\] expected session as 1 to 64 characters") as refused:
            client._infer("spade", {"labels": maps}, {"session": "a b"})
        assert refused.value.status == "invalid_argument"
        with pytest.raises(ServerError, match=r"expected one label map in a request with a session but got 2"):
            client._infer("spade", {"labels": maps.repeat(2, 0)}, {"session": "a"})
    after = scrape_at_rest(demo_server)
    assert after["spade_redrawn_maps_total"] - before["spade_redrawn_maps_total"] == 2  # the first was drawn whole
    assert after["spade_session_bytes"] > 1 << 20
