"""What the studio shows: views, sizes of screens, maps that are not square, the slider, and what it remembers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import raster_twin as twin
from PIL import Image
from playwright.sync_api import Browser, expect
from served import FREE_PORTS, TINY, png
from studio_page import StudioPage, open_studio

from serving.gateway.pair import Pair, serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.config import preset
from spade_core.files.checkpoints import save
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_generator

pytestmark = pytest.mark.xdist_group("chromium")

TREE = 7
SIZES = {
    "phone": (360, 740), "phone on its side": (740, 360), "tablet": (834, 1112), "laptop": (1366, 768),
    "4K": (3840, 2160),
}  # fmt: skip
APART = ("header.top", ".rail", "#map", "#picture", ".palette", ".strips")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A model of 64x128 maps with 8 classes, without a style."""
    weights = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    save(weights, seeded_generator(replace(TINY, width=128)))
    with serve_pair(ServeOptions(ModelOptions(weights, precision="fp32", threads=1, decoders=1), **FREE_PORTS)) as pair:
        yield pair


def box(page: StudioPage, selector: str) -> dict[str, float]:
    found = page.page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return dict(found)


def overlaps(a: dict[str, float], b: dict[str, float]) -> bool:
    def meet(at: str, size: str) -> bool:
        return a[at] + a[size] > b[at] + 0.5 and b[at] + b[size] > a[at] + 0.5

    return meet("x", "width") and meet("y", "height")


def screen(page: StudioPage) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(page.page.screenshot())).convert("RGB"))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("phone", "light"), ("phone on its side", "dark"), ("tablet", "light"), ("laptop", "dark"), ("4K", "dark")],
)
def test_nothing_covers_anything_at_any_size(browser: Browser, studio: Pair, name: str, scheme: str) -> None:
    width, height = SIZES[name]
    page = open_studio(browser, studio, viewport={"width": width, "height": height}, color_scheme=scheme)
    page.begin()
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    boxes = {selector: box(page, selector) for selector in APART}
    for i, one in enumerate(APART):
        assert boxes[one]["x"] >= 0, one
        assert boxes[one]["x"] + boxes[one]["width"] <= width, one
        for other in APART[i + 1 :]:
            assert not overlaps(boxes[one], boxes[other]), (one, other)
    assert page.page.evaluate("scrollY") == 0
    assert boxes["#map"]["width"] == pytest.approx(boxes["#map"]["height"], abs=0.5)
    assert boxes["#map"]["width"] >= 0.3 * min(width, height)  # pictures first
    ground = screen(page)[height // 2, 2].astype(int)
    assert (ground.mean() > 230) == (scheme == "light")
    assert page.errors == []
    page.context.close()


@pytest.mark.parametrize("size", [(1366, 768), (360, 740)])
def test_a_wide_model_has_wide_pictures(browser: Browser, wide: Pair, size: tuple[int, int]) -> None:
    page = open_studio(browser, wide, viewport={"width": size[0], "height": size[1]})
    page.begin("Blank horizon")
    assert page.labels.shape == (64, 128)
    for canvas in ("#map", "#picture"):
        found = box(page, canvas)
        assert found["width"] == pytest.approx(2 * found["height"], abs=1)
        assert found["x"] >= 0
        assert found["x"] + found["width"] <= size[0]
    assert page.picture.shape == (64, 128, 3)
    before = page.labels
    page.brush(5)
    page.stroke((100, 12), (120, 50))
    near = twin.segment(64, 128, (100, 12), (120, 50), 5)
    np.testing.assert_array_equal(page.labels, np.where(near, 7, before))
    page.page.wait_for_selector("#history .card.ready")
    card = box(page, "#history .card canvas")
    assert card["width"] == pytest.approx(2 * card["height"], abs=1)
    assert page.errors == []
    page.context.close()


def test_the_wheel_zooms_where_it_points_and_strokes_land_there(page: StudioPage) -> None:
    before, point = page.labels, page.at(90, 40)
    page.page.mouse.move(*point)
    page.page.mouse.wheel(0, -900)
    page.page.wait_for_function("spadeStudio.view.zoom > 3")
    page.page.mouse.down()
    page.page.mouse.up()
    np.testing.assert_array_equal(page.labels, np.where(twin.segment(128, 128, (90, 40), (90, 40), 9), TREE, before))
    page.page.keyboard.press("Home")
    assert page.page.evaluate("[spadeStudio.view.zoom, spadeStudio.view.x, spadeStudio.view.y]") == [1, 0, 0]


@pytest.mark.parametrize("how", ["space", "hand", "middle button"])
def test_the_view_moves_without_painting(page: StudioPage, how: str) -> None:
    before = page.labels
    for _ in range(3):
        page.page.keyboard.press("+")
    start = page.page.evaluate("[spadeStudio.view.x, spadeStudio.view.y]")
    scale = page.page.evaluate("spadeStudio.view.scale(spadeStudio.stage.canvases.map.clientWidth)")
    x, y = page.at(64, 64)
    if how == "hand":
        page.tool("Move the view")
    page.page.locator("#map").focus()
    if how == "space":
        page.page.keyboard.down(" ")
    button: Any = "middle" if how == "middle button" else "left"
    page.page.mouse.move(x, y)
    page.page.mouse.down(button=button)
    page.page.mouse.move(x + 50, y - 30)
    page.page.mouse.up(button=button)
    page.page.keyboard.up(" ")
    moved = page.page.evaluate("[spadeStudio.view.x, spadeStudio.view.y]")
    assert moved[0] == pytest.approx(start[0] - 50 / scale, abs=0.1)
    assert moved[1] == pytest.approx(start[1] + 30 / scale, abs=0.1)
    np.testing.assert_array_equal(page.labels, before)


def test_the_slider_shows_the_map_on_its_left_and_the_picture_on_its_right(page: StudioPage) -> None:
    page.settle()
    page.page.keyboard.press("c")
    area = box(page, "#map")
    assert box(page, "#picture") == area
    slider = page.page.locator("#split")

    def at(share: float) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """The middle row at a share of the width: on the screen, of the map, and of the picture."""
        page.page.mouse.move(2, 2)
        page.page.wait_for_timeout(100)
        shown = screen(page)[round(area["y"] + area["height"] / 2), round(area["x"] + share * area["width"])]
        script = """([id, share]) => {
            const canvas = document.getElementById(id);
            const [x, y] = [Math.round(share * canvas.width), Math.round(canvas.height / 2)];
            return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
        }"""
        pixels = [page.page.evaluate(script, [name, share]) for name in ("map", "picture")]
        return [np.array(one).astype(int) for one in (shown, *pixels)]

    def shows(share: float) -> str:
        shown, *both = at(share)
        far = [np.abs(shown - one).max() for one in both]
        assert min(far) <= 12 < max(far), (share, far)
        return ("map", "picture")[int(np.argmin(far))]

    assert (shows(0.2), shows(0.8)) == ("map", "picture")
    slider.fill("10")
    assert shows(0.2) == "picture"
    slider.focus()
    page.page.keyboard.press("End")
    assert shows(0.8) == "map"
    slider.fill("50")
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(area["x"] + 0.9 * area["width"], y)
    page.page.mouse.up()
    expect(slider).to_have_value("90")
    assert shows(0.8) == "map"
    page.page.keyboard.press("Escape")


def test_numbers_choose_classes_and_sizes_are_remembered(page: StudioPage) -> None:
    page.page.locator("#map").focus()
    page.page.keyboard.press("3")
    expect(page.classes.get_by_role("radio").nth(2)).to_be_checked()
    page.page.keyboard.press("0")
    expect(page.classes.get_by_role("radio").nth(9)).to_be_checked()
    page.page.keyboard.press("x")
    expect(page.classes.get_by_role("radio").nth(2)).to_be_checked()
    page.brush(23)
    page.tool("Eraser")
    page.brush(31)
    page.page.locator("#theme").click()
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    sizes = [page.page.evaluate("(tool) => spadeStudio.app.settings.sizes[tool]", tool) for tool in ("brush", "eraser")]
    assert sizes == [23, 31]
    assert page.page.evaluate("spadeStudio.app.tool") == "eraser"
    assert page.page.locator("html").get_attribute("data-theme") == "dark"


def test_the_history_comes_back_with_the_painting(browser: Browser, studio: Pair, page: StudioPage) -> None:
    cards = page.page.locator("#history .card.ready")
    expect(cards).to_have_count(1)
    first, picture = page.labels, page.picture
    page.stroke((20, 30), (90, 100))
    expect(cards).to_have_count(2)
    page.page.wait_for_timeout(1000)  # the page keeps a painting shortly after a stroke
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    expect(cards).to_have_count(2)
    cards.last.click()
    np.testing.assert_array_equal(page.labels, first)
    np.testing.assert_array_equal(page.picture, picture)
    page.page.close()
    later = open_studio(browser, studio, context=page.context)
    later.begin("Go on with your painting")
    expect(later.page.locator("#history .card.ready")).to_have_count(2)
    later.tool("Fill")
    later.stroke((64, 5))
    assert (later.labels != first).any()
    expect(later.page.locator("#history .card.ready")).to_have_count(3)


def test_a_stroke_whose_last_frame_came_before_its_end_is_in_the_history(page: StudioPage) -> None:
    cards = page.page.locator("#history .card.ready")
    expect(cards).to_have_count(1)
    mouse = page.page.mouse
    mouse.move(*page.at(20, 30))
    mouse.down()
    mouse.move(*page.at(90, 100))
    page.settle()
    expect(cards).to_have_count(1)
    mouse.up()
    expect(cards).to_have_count(2)


def test_a_duplicated_tab_has_a_painting_of_its_own(page: StudioPage) -> None:
    with page.context.expect_page() as opened:
        page.page.evaluate("window.open(location.href)")  # takes a copy of what the tab keeps
    copy = opened.value
    copy.wait_for_selector("body[data-ready]")
    name = "sessionStorage.getItem('spade-studio')"
    assert copy.evaluate(name) != page.page.evaluate(name)
    copy.close()


def test_a_label_map_is_dropped_on_the_page(page: StudioPage) -> None:
    other = demo_map(14, preset("demo"), height=128, width=128)[0]
    drop = """(bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
    }"""
    page.page.evaluate(drop, list(png(other)))
    expect(page.page.locator("#notice")).to_have_text("dropped.png is open.")
    np.testing.assert_array_equal(page.labels, other)


def test_a_server_of_the_local_network_works_without_https(browser: Browser, studio: Pair) -> None:
    """Browsers keep some functions from pages of other machines over plain HTTP."""
    page = StudioPage(browser, studio.http_url.replace("127.0.0.1", "painter.test"))
    page.begin()
    assert page.page.evaluate("[isSecureContext, crypto.randomUUID, navigator.clipboard]") == [False, None, None]
    page.stroke((20, 30), (60, 45))
    labels = page.labels
    page.page.wait_for_timeout(1000)
    page.page.locator("#save-menu summary").click()
    page.page.get_by_text("The request, as curl and Python").click()
    expect(page.page.get_by_role("button", name="Copy")).to_have_count(0)
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    np.testing.assert_array_equal(page.labels, labels)
    # The browser says that it leaves out this header, which asks for more isolation than plain HTTP can give.
    assert [line for line in page.errors if "Cross-Origin-Opener-Policy" not in line] == []
    page.context.close()


def test_the_first_key_skips_to_the_painting(page: StudioPage) -> None:
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    page.page.keyboard.press("Tab")
    expect(page.page.locator(".skip")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#map")).to_be_focused()


def test_what_is_painted_just_before_a_reload_is_kept(page: StudioPage) -> None:
    for row in (20, 60, 100):
        page.stroke((20, row), (90, row))
        painted = page.labels
        page.page.reload()
        page.page.wait_for_selector("body[data-ready]")
        np.testing.assert_array_equal(page.labels, painted)
        expect(page.page.locator("#scenes")).not_to_be_visible()
