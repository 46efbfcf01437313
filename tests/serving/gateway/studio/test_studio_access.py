"""The studio for everybody: keyboard alone, fingers and pens, screen readers, phones, and servers that go away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raster_twin as twin
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect
from served import FREE_PORTS
from studio_page import StudioPage, open_studio

from serving.gateway.pair import Pair, serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions

pytestmark = pytest.mark.xdist_group("chromium")

TREE, BOAT = 7, 15
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
SCENE = "By the lake"


@pytest.fixture
def phone(browser: Browser, studio: Pair) -> Iterator[StudioPage]:
    opened = open_studio(browser, studio, **PHONE)
    opened.begin()
    yield opened
    assert opened.errors == []
    opened.context.close()


def test_a_picture_is_painted_with_the_keyboard_alone(browser: Browser, studio: Pair) -> None:
    page = open_studio(browser, studio)
    press = page.page.keyboard.press
    while not page.page.evaluate(f"document.activeElement.textContent === '{SCENE}'"):
        press("Tab")
    press("Enter")
    page.settle()
    before, picture = page.labels, page.picture
    press("/")
    page.page.keyboard.type("bo")
    press("Enter")  # the first class that is found, and back to the painting
    press("b")
    for _ in range(4):
        press("]")
    press("[")
    for _ in range(3):
        press("Shift+ArrowUp")
    press("Enter")  # begin at column 64, row 40
    for _ in range(2):
        press("Shift+ArrowRight")
    press("ArrowDown")
    press("Enter")
    assert page.page.evaluate("spadeStudio.app.size") == 12
    line = [(64, 40), (72, 40), (80, 40), (80, 41)]
    drawn = np.any([twin.segment(128, 128, a, b, 12) for a, b in pairwise(line)], axis=0)
    np.testing.assert_array_equal(page.labels, np.where(drawn, BOAT, before))
    assert (page.picture != picture).any()
    assert "boat" in page.page.locator("#spoken").inner_text() or page.page.locator("#spoken").inner_text()
    press("p")  # a triangle: Enter adds a corner, twice at one place closes
    for moves in ("ArrowDown", "ArrowRight", "ArrowLeft"):
        press("Enter")
        press(f"Shift+{moves}")
    press("Enter")
    press("Enter")
    assert page.page.evaluate("spadeStudio.app.painting.done.length") == 2
    press("Control+z")
    press("Control+z")
    np.testing.assert_array_equal(page.labels, before)
    press("Enter")
    press("Shift+ArrowLeft")
    press("Escape")
    np.testing.assert_array_equal(page.labels, before)
    assert page.errors == []
    page.context.close()


def touch(page: StudioPage, kind: str, *points: tuple[float, float]) -> None:
    touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    page.devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_a_finger_paints_and_two_fingers_move_the_view(phone: StudioPage) -> None:
    before = phone.labels
    touch(phone, "touchStart", phone.at(30, 90))
    touch(phone, "touchMove", phone.at(50, 90))
    touch(phone, "touchEnd")
    near = twin.segment(128, 128, (30, 90), (50, 90), 9)
    np.testing.assert_array_equal(phone.labels, np.where(near, TREE, before))
    painted = phone.labels
    one, two = phone.at(60, 60), phone.at(70, 60)
    touch(phone, "touchStart", one)
    touch(phone, "touchStart", one, two)  # the first finger's dot is taken back
    touch(phone, "touchMove", (one[0] - 40, one[1]), (two[0] + 40, two[1]))
    touch(phone, "touchEnd")
    np.testing.assert_array_equal(phone.labels, painted)
    assert phone.page.evaluate("spadeStudio.view.zoom") > 1.5


def test_a_pointer_that_the_system_takes_away_leaves_nothing(phone: StudioPage) -> None:
    before = phone.labels
    touch(phone, "touchStart", phone.at(30, 90))
    touch(phone, "touchMove", phone.at(50, 90))
    assert (phone.labels != before).any()
    touch(phone, "touchCancel")
    np.testing.assert_array_equal(phone.labels, before)


def test_fingers_do_not_paint_once_a_pen_was_seen(phone: StudioPage) -> None:
    x, y = phone.at(30, 90)
    pen = {"x": x, "y": y, "button": "left", "clickCount": 1, "pointerType": "pen"}
    for kind in ("mousePressed", "mouseReleased"):
        phone.devtools.send("Input.dispatchMouseEvent", {"type": kind, **pen})
    painted = phone.labels
    assert painted[90, 30] == TREE
    touch(phone, "touchStart", phone.at(60, 20))
    touch(phone, "touchMove", phone.at(70, 20))
    touch(phone, "touchEnd")
    np.testing.assert_array_equal(phone.labels, painted)


def test_a_phone_shows_everything_without_scrolling_sideways(phone: StudioPage) -> None:
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("map", "picture", "tools", "classes"):
        box = phone.page.locator(f"#{name}").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 740


@pytest.mark.parametrize(("scheme", "size"), [("light", "laptop"), ("dark", "phone")])
def test_axe_finds_no_violation(browser: Browser, studio: Pair, scheme: str, size: str) -> None:
    page = open_studio(browser, studio, color_scheme=scheme, **(PHONE if size == "phone" else {}))
    page.page.wait_for_selector(".scene.ready >> nth=7")
    seen = {"scenes": _violations(page)}
    page.begin()
    page.page.wait_for_selector("#variants .card.ready >> nth=5")
    seen["painting"] = _violations(page)
    page.set(view="compare")
    page.page.locator("#save-menu summary").click()
    seen["compare and menu"] = _violations(page)
    page.page.get_by_text("The request, as curl and Python").click()
    seen["request"] = _violations(page)
    page.page.keyboard.press("Escape")
    page.page.evaluate("document.getElementById('help-dialog').showModal()")
    seen["help"] = _violations(page)
    assert seen == {state: [] for state in seen}
    page.context.close()


def _violations(page: StudioPage) -> list[str]:
    found = Axe().run(page.page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}" for one in found for node in one["nodes"]
    ]


def test_motion_is_reduced_where_the_reader_asks_for_it(phone: StudioPage) -> None:
    transition = "getComputedStyle(document.querySelector('.scene .over')).transitionDuration"
    assert phone.page.evaluate(transition) == "0s"


def test_a_gateway_that_is_killed_and_comes_back_draws_what_was_painted_meanwhile(
    browser: Browser, tiny_weights: Path
) -> None:
    """The tiny model has no style and no landscapes, and reads instance maps: the page adapts."""
    options = ServeOptions(ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1), **FREE_PORTS)
    with serve_pair(options) as pair:
        page = open_studio(browser, pair)
        page.begin("Blank horizon")
        assert not page.page.locator("#style-panel").is_visible()
        before = page.picture
        os.kill(pair.gateway.pid, signal.SIGKILL)
        expect(page.page.locator("#status")).to_have_text("Reconnecting")
        page.stroke((10, 10), (50, 50))
        painted = page.labels
        expect(page.page.locator("#status")).to_have_text("Live", timeout=60_000)
        assert (page.picture != before).any()
        np.testing.assert_array_equal(page.labels, painted)
        page.context.close()


def test_a_server_that_stays_away_is_told_of_in_plain_words(phone: StudioPage) -> None:
    phone.page.route_web_socket("**/v1/live*", lambda socket: socket.close())
    phone.page.reload()
    expect(phone.page.locator("#notice")).to_contain_text("The server does not answer. Your painting is safe")
    phone.page.keyboard.press("Escape")
    before = phone.labels
    phone.stroke((10, 10), (50, 50))
    assert (phone.labels != before).any()


def test_a_busy_server_is_told_of_and_asked_again(phone: StudioPage) -> None:
    busy = {"type": "problem", "problem": {"detail": "[queue] full"}, "retry_after_s": 3.2}
    phone.page.evaluate("(message) => spadeStudio.live.receive([message, null])", busy)
    expect(phone.page.locator("#notice")).to_contain_text("The server is busy. Your painting is safe; next try in 3 s.")
    phone.stroke((10, 10), (50, 50))
    phone.settle()
    expect(phone.page.locator("#notice")).to_be_hidden()


def test_a_server_with_keys_asks_for_one(browser: Browser, studio: Pair) -> None:
    page = browser.new_page()
    answers = iter([401, None, None])

    def guard(route: Route) -> None:
        if next(answers) == 401 and "authorization" not in route.request.headers:
            route.fulfill(status=401)
        else:
            route.continue_()

    page.route("**/v1/studio", guard)
    page.goto(f"{studio.http_url}/studio/")
    page.get_by_role("textbox", name="Key").fill("secret")
    with page.expect_websocket(lambda socket: "key=secret" in socket.url):
        page.get_by_role("button", name="Go on").click()
    page.close()
