"""Parts of the gateway by themselves: Accept, keys, limits, traces, tags, settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.accept import best
from serving.gateway.doors import Doors
from serving.gateway.drawing import matches
from serving.gateway.keys import KeysError, new_key, read_keys
from serving.gateway.limits import Limit
from serving.gateway.settings import Settings
from serving.traces import IdsOnly

PNG, JPEG, JSON = "image/png", "image/jpeg", "application/json"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", PNG),
        ("*/*", PNG),
        ("image/jpeg", JPEG),
        ("application/*", JSON),
        ("image/png;q=0.1, image/jpeg;q=0.2", JPEG),
        ("*/*, image/png;q=0", JPEG),
        ("image/png;q=high, application/json", JSON),
        ("text/html", None),
        ("image/png;q=0", None),
    ],
)
def test_the_best_type_of_accept(accept: str, chosen: str | None) -> None:
    assert best(accept, [PNG, JPEG, JSON]) == chosen


@given(st.text())
def test_no_accept_is_an_error(accept: str) -> None:
    assert best(accept, [PNG, JPEG]) in (PNG, JPEG, None)


def test_a_key_is_found_by_its_hash_alone() -> None:
    text, key = new_key("me", 5)
    (read,) = read_keys(f"# comment\n\n{key.line()}  # mine", "the file")
    assert read == key
    assert text not in key.line()
    assert len(text) > 40
    assert new_key("me")[0] != text


@pytest.mark.parametrize("line", ["me", "me 12", "m/e " + "0" * 64, "me " + "0" * 64 + " 0", "me " + "0" * 64 + " 1 2"])
def test_a_wrong_line_of_keys_is_named(line: str) -> None:
    with pytest.raises(KeysError, match="file, line 2"):
        read_keys(f"good {'a' * 64} 7\n{line}", "the file")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_limit_refills_with_time() -> None:
    clock = Clock()
    limit = Limit(60, clock)
    assert limit.take(60) == 0
    assert limit.take(2) == 2
    clock.now = 1.0
    assert limit.take(2) == 1
    clock.now = 2.0
    assert limit.take(2) == 0
    assert limit.headers() == {"RateLimit-Policy": '"images";q=60;w=60', "RateLimit": '"images";r=0;t=60'}


def test_more_than_a_minutes_images_are_owed() -> None:
    clock = Clock()
    limit = Limit(10, clock)
    assert limit.take(25) == 0
    assert limit.wait_s(1) == 96  # fifteen are owed, at one in six seconds
    assert not limit.full()


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 30)), max_size=40))
def test_a_limit_holds_over_any_minute(calls: list[tuple[int, float]]) -> None:
    clock = Clock()
    limit = Limit(20, clock)
    taken: list[tuple[float, int]] = []
    for images, pause in calls:
        clock.now += pause
        if limit.take(images) == 0:
            taken.append((clock.now, images))
    for at, _ in taken:  # a full bucket, and what flows in meanwhile
        assert sum(images for when, images in taken if at <= when <= at + 60) <= 40 + 1e-6


def test_a_trace_is_carried_on_and_a_wrong_one_replaced() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    version, same, span, flags = IdsOnly().begin("x", f"00-{trace}-{parent}-01").traceparent.split("-")
    assert (version, same, flags) == ("00", trace, "01")
    assert span != parent
    for wrong in (None, "", f"00-{'0' * 32}-{parent}-01", f"00-{trace}-{parent}", f"ff-{trace}-{parent}-01"):
        assert trace not in IdsOnly().begin("x", wrong).traceparent


def test_tags_are_compared_weakly() -> None:
    assert matches('W/"a", "b"', '"a"')
    assert matches("*", '"a"')
    assert not matches('"ab"', '"a"')
    assert not matches(None, '"a"')
    assert not matches('"a"', None)


def test_settings_travel_as_json() -> None:
    doors = Doors(keys="/k", cors=("https://a.example",), trusted_proxies=("::1", "10.0.0.0/8"), json_log=True)
    settings = Settings(3, 4, 5, "127.0.0.1:1", "127.0.0.1:2", "http://127.0.0.1:3/metrics", "secret", doors=doors)
    assert Settings.from_json(settings.to_json()) == settings
    with pytest.raises(ValueError, match="expected known settings but got colour"):
        Settings.from_json('{"colour": 1}')
