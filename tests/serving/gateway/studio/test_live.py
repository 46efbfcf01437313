"""Live painting over a real gateway and a real Triton."""

from __future__ import annotations

import numpy as np
import pytest
from live_client import LiveClient, pixels
from served import png
from websockets.exceptions import ConnectionClosed

from serving.client import Client
from serving.gateway.pair import Pair
from serving.gateway.rle import decode_runs
from spade_core.config import preset
from spade_core.maps.colours import class_palette, draw
from spade_core.maps.drawn import demo_map

pytestmark = pytest.mark.xdist_group("chromium")

SCENE = demo_map(9, preset("demo"), height=128, width=128)[0]
OTHER = demo_map(14, preset("demo"), height=128, width=128)[0]


def test_a_frame_is_the_image_that_the_model_draws(studio: Pair) -> None:
    with LiveClient(studio) as live, Client(studio.grpc_url) as client:
        live.change({"type": "style", "style": {"seed": 7}})
        live.map(SCENE)
        header, image = live.frame()
        np.testing.assert_array_equal(image, client.synthesize(SCENE[None], seed=7).images[0])
    assert header["format"] == "png"
    assert header["timings"]["convs_s"] > 0
    assert header["timings"]["file_s"] > 0


def test_a_rectangle_changes_the_map_there_and_nowhere_else(studio: Pair) -> None:
    part = np.full((9, 14), 5, np.uint8)
    changed = SCENE.copy()
    changed[20:29, 30:44] = 5
    with LiveClient(studio) as live:
        live.map(SCENE)
        live.rect(30, 20, part)
        _, image = live.frame()
        live.map(changed)
        _, whole = live.frame()
    np.testing.assert_array_equal(image, whole)


def test_one_label_changes_the_picture_near_it_only(studio: Pair) -> None:
    with LiveClient(studio) as live:
        live.map(SCENE)
        _, before = live.frame()
        live.rect(71, 33, np.array([[13]], np.uint8))  # no coarser level samples an odd row and column
        _, after = live.frame()
    differs = (before != after).any(axis=2)
    rows, columns = np.nonzero(differs)
    assert differs[33, 71]
    assert np.abs(rows - 33).max() <= 5
    assert np.abs(columns - 71).max() <= 5


def test_what_is_stale_is_not_drawn(studio: Pair) -> None:
    strokes = 60
    with LiveClient(studio) as live:
        live.map(SCENE)
        for i in range(strokes):
            live.rect(i, 64, np.full((1, 1), 5, np.uint8))
        frames = 1
        while (header := live.receive()[0])["revision"] < live.revision:
            frames += 1
    assert header["revision"] == strokes + 1
    assert frames < strokes


def test_a_session_survives_a_lost_connection(studio: Pair) -> None:
    with LiveClient(studio) as live:
        live.change({"type": "style", "style": {"seed": 3}})
        live.map(SCENE)
        _, before = live.frame()
        name = live.welcome["session"]
    with LiveClient(studio, session=name) as again:
        assert again.welcome == {"type": "welcome", "session": name, "resumed": True, "revision": 2,
                                 "height": 128, "width": 128}  # fmt: skip
        header, body = again.receive()  # without a message: the picture of where the painter was
        assert header["revision"] == 2
        np.testing.assert_array_equal(pixels(body), before)


def test_edits_that_no_picture_has_shown_survive_a_lost_connection(studio: Pair) -> None:
    changed = SCENE.copy()
    changed[20:29, 30:44] = 5
    with LiveClient(studio) as live:
        live.map(SCENE)
        live.rect(30, 20, np.full((9, 14), 5, np.uint8))
        name = live.welcome["session"]
    with LiveClient(studio, session=name) as again, Client(studio.grpc_url) as client:
        assert again.welcome["revision"] == 2
        header, body = again.receive()
        np.testing.assert_array_equal(pixels(body), client.synthesize(changed[None], seed=0).images[0])
    assert header["revision"] == 2


def test_an_unknown_session_is_a_new_one(studio: Pair) -> None:
    with LiveClient(studio, session="nobody") as live:
        assert live.welcome["session"] != "nobody"
        assert live.welcome["resumed"] is False


def test_a_newer_connection_takes_a_session_over(studio: Pair) -> None:
    with LiveClient(studio) as live, LiveClient(studio, session=live.welcome["session"]) as newer:
        with pytest.raises(ConnectionClosed) as closed:
            live.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4409
        newer.map(SCENE)
        newer.frame()


def test_styles_of_one_map_are_drawn_from_one_plan(studio: Pair) -> None:
    seeds = [1, 2, 3, 4]
    with LiveClient(studio) as live, Client(studio.grpc_url) as client:
        live.map(SCENE)
        header, body = live.ask({"type": "variants", "styles": [{"seed": seed} for seed in seeds]})
        images = client.synthesize(np.repeat(SCENE[None], 4, 0), seed=seeds).images
    ends = np.cumsum(header["lengths"])
    for end, length, image in zip(ends, header["lengths"], images, strict=True):
        difference = np.abs(pixels(body[end - length : end]).astype(int) - image)
        assert difference.max() <= 1  # another batch size may round another way
    assert header["timings"]["batch_size"] == len(seeds)


def test_a_mixture_of_two_styles_begins_and_ends_with_them(studio: Pair) -> None:
    images = {}
    with LiveClient(studio) as live:
        live.map(SCENE)
        ends = {"from": {"seed": 5}, "to": {"seed": 9}}
        for name, style in {
            "from": ends["from"],
            "to": ends["to"],
            **{m: ends | {"mix": m} for m in (0, 0.5, 1)},
        }.items():
            live.change({"type": "style", "style": style})
            images[name] = live.frame()[1].astype(int)
    assert np.abs(images["from"] - images[0]).max() <= 1
    assert np.abs(images["to"] - images[1]).max() <= 1
    ends_apart = np.abs(images["from"] - images["to"]).mean()
    assert 0 < np.abs(images[0.5] - images["from"]).mean() < ends_apart
    assert 0 < np.abs(images[0.5] - images["to"]).mean() < ends_apart


@pytest.mark.parametrize("coloured", [False, True])
def test_a_label_map_file_is_read_as_the_library_reads_it(studio: Pair, coloured: bool) -> None:
    large = OTHER.repeat(2, axis=0).repeat(2, axis=1)
    file = png(draw(large, class_palette(preset("demo"))) if coloured else large)
    with LiveClient(studio) as live:
        answer, body = live.ask({"type": "read_map"}, file)
        assert answer["type"] == "map"
        np.testing.assert_array_equal(decode_runs(body, 128, 128), OTHER)
        live.change({"type": "map", "encoding": "png"}, png(OTHER))
        _, from_file = live.frame()
        live.map(OTHER)
        np.testing.assert_array_equal(from_file, live.frame()[1])


WRONG = [
    ({"type": "paint"}, b"", "expected a message of type map, rect"),
    ({"type": "rect", "x": 0, "y": 0, "width": 1, "height": 1, "encoding": "rle"}, b"\0\1\0", "expected a whole map"),
    ({"type": "map", "encoding": "gif"}, b"x", "expected encoding rle or png but got 'gif'"),
    ({"type": "map", "encoding": "rle"}, b"\0\1\0", "together 16384 for 128 rows of 128, but got 1 runs"),
    ({"type": "map", "encoding": "png"}, b"GIF89a", "expected a PNG but got the given bytes, a GIF image"),
    ({"type": "style", "style": {"seed": -1}}, b"", "expected {\"seed\": 7}"),
    ({"type": "style", "style": {"vector": [1]}}, b"", "expected a vector of 256 numbers but got 1"),
    ({"type": "style", "style": {"name": "spring"}}, b"", "expected a name out of "),
    ({"type": "variants", "styles": []}, b"", "expected 1..8 styles"),
    ({"type": "variants", "styles": [{"seed": 1}], "format": "bmp"}, b"", "expected format png, jpeg, webp"),
    ({"type": "format", "format": "webp", "quality": 0}, b"", "expected quality as an integer 1..100"),
    ({"type": "map", "encoding": "rle"}, b"\x63\x00\x40", "expected ids 0..15 but got 99 in 16384 pixels"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "body", "text"), WRONG, ids=[text for _, _, text in WRONG])
def test_a_wrong_message_is_answered_and_the_connection_stays(
    studio: Pair, header: dict[str, object], body: bytes, text: str
) -> None:
    with LiveClient(studio) as live:
        live.send(header, body)
        problem = live.problem()["problem"]
        assert text in problem["detail"]
        assert problem["type"] == "urn:spade:problem:invalid-request"
        live.map(SCENE)
        live.frame()


@pytest.mark.parametrize("message", ["[]", "{", '{"type": 1}', b"\xff\xff\xff\xff", b"", "[" * 100_000])
def test_noise_is_answered_and_the_connection_stays(studio: Pair, message: str | bytes) -> None:
    with LiveClient(studio) as live:
        live.socket.send(message)
        assert live.problem()["problem"]["status"] == 400
        live.map(SCENE)
        live.frame()


def test_a_page_of_another_origin_is_turned_away(studio: Pair) -> None:
    with pytest.raises(ConnectionClosed) as closed, LiveClient(studio, origin="https://elsewhere.example"):
        pass
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403
    with LiveClient(studio, origin=studio.http_url):
        pass


def test_a_message_over_the_limit_ends_the_connection(studio: Pair) -> None:
    with LiveClient(studio) as live:
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - the server may close while the message goes out
            live.socket.send(bytes((16 << 20) + 1))
            live.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
