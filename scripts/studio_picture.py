"""Make docs/assets/studio.jpg: the studio with a drawn scene, on a laptop in light colours and on a phone in dark ones.

    .venv/bin/python scripts/studio_picture.py

Needs Debian's Chromium (scripts/chromium installs it).
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

from serving.gateway.pair import serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.config import DEMO_WEIGHTS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "assets" / "studio.jpg"
LAPTOP: dict[str, Any] = {"viewport": {"width": 1360, "height": 850}, "color_scheme": "light"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 380, "height": 786}, "color_scheme": "dark", "has_touch": True, "is_mobile": True,
}  # fmt: skip
GAP = 32
STROKES = ((8, 40, 92), (8, 48, 90), (8, 57, 94), (8, 116, 96))  # (brush size, column, row): trees


def main() -> None:
    options = ServeOptions(ModelOptions(DEMO_WEIGHTS), http_port=0, grpc_port=0, metrics_port=0)
    with serve_pair(options) as pair, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        laptop = screenshot(browser, pair.http_url, "Houses on the shore", LAPTOP)
        phone = screenshot(browser, pair.http_url, "Forest at dusk", PHONE)
        browser.close()
    width = laptop.width + phone.width + 3 * GAP
    picture = Image.new("RGB", (width, laptop.height + 2 * GAP), (226, 223, 216))
    picture.paste(laptop, (GAP, GAP), rounded(laptop.size))
    picture.paste(phone, (laptop.width + 2 * GAP, (picture.height - phone.height) // 2), rounded(phone.size))
    picture.save(PICTURE, quality=82, optimize=True, progressive=True)


def screenshot(browser: Browser, url: str, scene: str, options: dict[str, Any]) -> Image.Image:
    """The studio with a scene and a few strokes."""
    context = browser.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(f"{url}/studio/")
    page.get_by_role("button", name=scene).click()
    page.wait_for_selector("#history .card")
    box = page.locator("#map").bounding_box()
    assert box is not None
    for size, x, y in STROKES:
        page.evaluate("(size) => spadeStudio.app.setSize(size)", size)
        page.mouse.click(box["x"] + x * box["width"] / 128, box["y"] + y * box["height"] / 128)
    page.wait_for_selector("#history .card >> nth=1")
    page.wait_for_selector("#variants .card.ready >> nth=5")
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.72 * box["height"])
    page.wait_for_timeout(1500)  # the strip of styles follows the last stroke
    page.evaluate("spadeStudio.app.sendStyle()")  # the latency of a picture that nothing else waits beside
    page.wait_for_timeout(500)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def rounded(size: tuple[int, int]) -> Image.Image:
    """A mask with round corners, drawn large and made smaller so that the corners are smooth."""
    large = Image.new("L", (4 * size[0], 4 * size[1]), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, *large.size), radius=64, fill=255)
    return large.resize(size)


if __name__ == "__main__":
    main()
