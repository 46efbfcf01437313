"""The studio in a real browser, over a real gateway and a real Triton: labels and pixels after each stroke."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest
import raster_twin as twin
from PIL import Image
from playwright.sync_api import Browser, expect
from served import png, wait_until
from studio_page import StudioPage, open_studio

from serving.gateway.pair import Pair
from serving.gateway.studio.pages import POLICY
from spade_core.config import preset
from spade_core.maps.colours import class_palette, draw
from spade_core.maps.drawn import demo_map
from spade_core.maps.label_maps import read_label_map

pytestmark = pytest.mark.xdist_group("chromium")

OTHER = demo_map(14, preset("demo"), height=128, width=128)[0]
WATER, TREE, BOAT = 5, 7, 15


def test_the_page_allows_no_inline_script(studio: Pair) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{studio.http_url}/studio/") as answer:
        policy = answer.headers.get_all("Content-Security-Policy")
    assert policy == [POLICY]
    assert "script-src 'self';" in POLICY
    assert "unsafe" not in POLICY


def test_a_stroke_paints_the_pixels_near_its_line(page: StudioPage) -> None:
    before = page.labels
    page.choose("boat")
    page.brush(7)
    page.stroke((20, 30), (60, 45))
    near = twin.segment(128, 128, (20, 30), (60, 45), 7)
    np.testing.assert_array_equal(page.labels, np.where(near, BOAT, before))


def test_the_picture_changes_where_the_map_changes_and_stays_the_same_elsewhere(page: StudioPage) -> None:
    before = page.picture
    page.choose("water")
    page.brush(1)
    page.stroke((71, 33))  # no coarser level samples an odd row and column, so the change stays within 5 pixels
    after = page.picture
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert (before[33, 71] != after[33, 71]).any()
    assert np.abs(rows - 33).max() <= 5
    assert np.abs(columns - 71).max() <= 5


def test_the_picture_can_be_painted_on_too(page: StudioPage) -> None:
    page.brush(1)
    page.stroke((40, 50), canvas="picture")
    assert page.labels[50, 40] == TREE


def test_undo_and_redo_are_exact_to_the_bit(page: StudioPage) -> None:
    states = [(page.labels, page.picture)]
    for tool, points in (("Brush", [(20, 90), (80, 100)]), ("Rectangle", [(90, 10), (110, 40)]), ("Fill", [(64, 5)])):
        page.tool(tool)
        page.stroke(*points)
        states.append((page.labels, page.picture))
    for labels, picture in reversed(states[:-1]):
        page.page.keyboard.press("Control+z")
        np.testing.assert_array_equal(page.labels, labels)
        np.testing.assert_array_equal(page.picture, picture)
    expect(page.page.get_by_role("button", name="Undo")).to_be_disabled()
    for labels, picture in states[1:]:
        page.page.get_by_role("button", name="Redo").click()
        np.testing.assert_array_equal(page.labels, labels)
        np.testing.assert_array_equal(page.picture, picture)


def test_the_eraser_restores_what_was_below_and_a_lock_holds(page: StudioPage) -> None:
    below = page.labels
    page.brush(9)
    page.stroke((30, 100), (60, 100))
    painted = page.labels
    page.page.keyboard.press("k")
    page.choose("boat")
    page.brush(15)
    page.stroke((30, 100), (60, 100))
    behind = page.labels
    np.testing.assert_array_equal(behind[painted != below], painted[painted != below])
    assert (behind == BOAT).sum() > (below == BOAT).sum()
    page.page.keyboard.press("k")
    page.tool("Eraser")
    page.brush(40)
    page.stroke((20, 100), (70, 100))
    np.testing.assert_array_equal(page.labels, below)


def test_a_polygon_closes_at_its_first_corner(page: StudioPage) -> None:
    before = page.labels
    page.tool("Polygon")
    corners = [(30, 20), (70, 25), (50, 60)]
    for corner in [*corners, (31, 21)]:
        page.stroke(corner)
    inside = twin.polygon(128, 128, corners)
    np.testing.assert_array_equal(page.labels, np.where(inside, TREE, before))


def test_a_new_style_keeps_the_layout(page: StudioPage) -> None:
    labels, before = page.labels, page.picture
    page.page.locator("#style-from").fill("5")
    page.page.keyboard.press("Enter")
    dusk = page.picture
    np.testing.assert_array_equal(page.labels, labels)
    assert np.abs(dusk.astype(int) - before).mean() > 5
    page.page.locator("#style-from").fill("9")
    page.page.keyboard.press("Enter")
    np.testing.assert_array_equal(page.picture, before)
    page.page.locator("#style-to").fill("5")
    page.page.keyboard.press("Enter")
    page.page.locator("#mix").fill("100")
    np.testing.assert_array_equal(page.picture, dusk)
    page.page.locator("#mix").fill("50")
    between = page.picture.astype(int)
    assert 0 < np.abs(between - before).mean() < np.abs(before.astype(int) - dusk).mean()


def test_the_strip_shows_the_styles_that_the_weights_name(page: StudioPage, studio: Pair) -> None:
    names = httpx.get(f"{studio.http_url}/v1/model").json()["styles"]
    page.page.wait_for_selector(f"#variants .card.ready >> nth={len(names) - 1}")
    expect(page.page.locator("#variants .card")).to_have_text([name.capitalize() for name in names])
    page.page.get_by_role("button", name="Winter").click()
    expect(page.page.locator("#style-from")).to_have_attribute("placeholder", "Winter")
    answer = httpx.post(
        f"{studio.http_url}/v1/synthesize", files={"label_map": png(page.labels)}, data={"style_name": "winter"}
    )
    np.testing.assert_array_equal(page.picture, np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")))
    page.page.get_by_role("button", name="More styles").click()
    page.page.wait_for_selector("#variants .card.ready >> nth=5")
    expect(page.page.locator("#variants .card")).to_have_count(6)
    expect(page.page.get_by_role("button", name="Style of seed")).to_have_count(6)


def test_a_photo_gives_its_style(page: StudioPage) -> None:
    before = page.picture.astype(int)
    page.page.locator("#style-from").fill("12")
    page.page.keyboard.press("Enter")
    night = page.picture
    file = {"name": "night.png", "mimeType": "image/png", "buffer": png(night)}
    page.page.locator("#style-from").fill("9")
    page.page.keyboard.press("Enter")
    page.page.locator("#photo-file").set_input_files(file)
    expect(page.page.locator("#notice")).to_have_text("The style is now the style of night.png.")
    taken = page.picture.astype(int)
    assert np.abs(taken - night).mean() < np.abs(before - night).mean() / 2
    page.page.locator("#photo-file").set_input_files({"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"x"})
    expect(page.page.locator("#notice")).to_contain_text("expected a readable image file")
    page.errors.clear()  # the browser's console tells of the 400


@pytest.mark.parametrize("coloured", [False, True])
def test_a_label_map_is_opened_and_saved_as_it_was(page: StudioPage, coloured: bool) -> None:
    file = png(draw(OTHER, class_palette(preset("demo"))) if coloured else OTHER)
    page.page.locator("#map-file").set_input_files({"name": "other.png", "mimeType": "image/png", "buffer": file})
    expect(page.page.locator("#notice")).to_have_text("other.png is open.")
    np.testing.assert_array_equal(page.labels, OTHER)
    page.page.locator("#save-menu summary").click()
    with page.page.expect_download() as download:
        page.page.get_by_text("The label map (PNG)").click()
    saved = Path(download.value.path()).read_bytes()
    np.testing.assert_array_equal(read_label_map(saved), OTHER)
    shown = np.asarray(Image.open(io.BytesIO(saved)).convert("RGB"))
    np.testing.assert_array_equal(shown, draw(OTHER, class_palette(preset("demo"))))


def test_the_picture_is_saved_without_loss(page: StudioPage) -> None:
    page.page.locator("#save-menu summary").click()
    with page.page.expect_download() as download:
        page.page.get_by_text("The picture (PNG)").click()
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
    np.testing.assert_array_equal(saved, page.picture)


def test_picture_and_map_are_saved_together(page: StudioPage) -> None:
    files = []
    page.page.on("download", lambda file: files.append(file))
    page.page.locator("#save-menu summary").click()
    page.page.get_by_role("button", name="Both").click()
    wait_until(lambda: page.page.wait_for_timeout(50) or len(files) == 2, "two files")
    assert [file.suggested_filename for file in files] == ["picture.png", "map.png"]
    picture, labels = [np.asarray(Image.open(file.path())) for file in files]
    np.testing.assert_array_equal(picture[..., :3], page.picture)
    np.testing.assert_array_equal(labels, page.labels)


def test_a_file_that_is_no_label_map_is_refused_in_plain_words(page: StudioPage) -> None:
    before = page.labels
    bad = np.full((128, 128), 99, np.uint8)
    file = {"name": "bad.png", "mimeType": "image/png", "buffer": png(bad)}
    page.page.locator("#map-file").set_input_files(file)
    expect(page.page.locator("#notice")).to_contain_text("expected ids 0..15 but got 99 in 16384 pixels")
    np.testing.assert_array_equal(page.labels, before)


def test_two_tabs_paint_two_pictures(browser: Browser, studio: Pair, page: StudioPage) -> None:
    other = open_studio(browser, studio, context=page.context)
    other.begin("Two sails")
    mine = page.labels
    other.stroke((10, 10), (50, 50))
    np.testing.assert_array_equal(page.labels, mine)
    assert (page.picture != other.picture).any()
    other.page.reload()
    other.page.wait_for_selector("body[data-ready]")
    assert (other.labels != mine).any()  # each tab finds its own painting


def test_a_painting_comes_back_after_a_crash(page: StudioPage) -> None:
    page.stroke((20, 30), (60, 45))
    page.page.wait_for_timeout(1000)  # the page keeps a painting shortly after a stroke
    labels, picture = page.labels, page.picture
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    np.testing.assert_array_equal(page.labels, labels)
    np.testing.assert_array_equal(page.picture, picture)
    page.tool("Eraser")
    page.brush(40)
    page.stroke((10, 30), (70, 45))
    assert (page.labels != labels).any()  # what was below has come back too


def test_a_new_window_offers_the_last_painting(browser: Browser, studio: Pair, page: StudioPage) -> None:
    page.stroke((20, 30), (60, 45))
    labels = page.labels
    page.page.wait_for_timeout(1000)
    page.page.close()
    later = open_studio(browser, studio, context=page.context)
    later.begin("Go on with your painting")
    np.testing.assert_array_equal(later.labels, labels)


def test_history_goes_back_to_an_earlier_picture(page: StudioPage) -> None:
    page.page.wait_for_selector("#history .card")
    labels, picture = page.labels, page.picture
    page.stroke((20, 30), (90, 100))
    page.page.wait_for_selector("#history .card >> nth=1")
    page.page.locator("#history .card").last.click()
    np.testing.assert_array_equal(page.labels, labels)
    np.testing.assert_array_equal(page.picture, picture)


def test_latency_is_shown_with_its_parts(page: StudioPage) -> None:
    expect(page.page.locator("#latency")).to_contain_text("ms")
    for part in ("queue", "plan", "codebook", "convs", "file", "way"):
        expect(page.page.locator("#latency-text")).to_contain_text(part)


def test_the_request_is_shown_as_curl_and_python(page: StudioPage, studio: Pair, tmp_path: Path) -> None:
    page.page.locator("#save-menu summary").click()
    page.page.get_by_text("The request, as curl and Python").click()
    codes = page.page.locator("#codes pre").all_inner_texts()
    assert codes[0].startswith(f"curl {studio.http_url}/v1/synthesize")
    assert "-F seed=9" in codes[0]
    assert "httpx.post(" in codes[1]
    assert '"seed": 9' in codes[1]
    (tmp_path / "map.png").write_bytes(png(page.labels))
    subprocess.run([sys.executable, "-c", codes[1]], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")), page.picture)
