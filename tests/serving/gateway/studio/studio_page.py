"""The studio in a browser, as a test reads it: labels, pixels, and what the page loaded."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Browser, Locator, Page, expect

from serving.gateway.pair import Pair

WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)

_SETTLED = """() => {
    const { app, live, strokes } = spadeStudio;
    return !app.dirty && app.lastFrame && live.state === "live" && app.lastFrame.header.revision === live.revision;
}"""
_PIXELS = """() => {
    const { bitmap } = spadeStudio.app.lastFrame;
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    canvas.drawImage(bitmap, 0, 0);
    return spadeTest(canvas.getImageData(0, 0, bitmap.width, bitmap.height).data);
}"""
_BASE64 = """globalThis.spadeTest = (bytes) => {
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
};"""


class StudioPage:
    """One tab. Pictures come without loss, so that their pixels can be compared."""

    def __init__(self, browser: Browser, url: str, context: Any = None, **options: Any) -> None:
        usual = {"viewport": {"width": 1000, "height": 700}, "reduced_motion": "reduce"}
        self.context = context or browser.new_context(**(usual | options))
        self.page: Page = self.context.new_page()
        self.devtools = self.context.new_cdp_session(self.page)
        self.errors: list[str] = []
        self.loaded: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.loaded.append(request.url))
        self.page.add_init_script(_BASE64)
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(f"{url}/studio/?format=png")
        self.page.wait_for_selector("body[data-ready]")

    def begin(self, scene: str = "By the lake") -> None:
        """Choose a scene of the first screen."""
        self.page.get_by_role("button", name=scene).click()
        self.settle()

    def settle(self) -> None:
        """Wait until the picture is the picture of the newest map and style."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.wait_for_function(_SETTLED)

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """The map, [H, W]."""
        found = self.page.evaluate("() => [spadeTest(spadeStudio.app.painting.labels), spadeStudio.app.model.width]")
        return np.frombuffer(base64.b64decode(found[0]), np.uint8).reshape(-1, found[1])

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The pixels of the newest picture, [H, W, 3]."""
        self.settle()
        data = np.frombuffer(base64.b64decode(self.page.evaluate(_PIXELS)), np.uint8)
        return data.reshape(*self.labels.shape, 4)[..., :3]

    def at(self, x: int, y: int, canvas: str = "map") -> tuple[float, float]:
        """The middle of a map pixel on the screen, for a view that shows everything."""
        box = self.page.locator(f"#{canvas}").bounding_box()
        assert box is not None
        height, width = self.labels.shape
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def stroke(self, *points: tuple[int, int], canvas: str = "map") -> None:
        """Press the mouse at the first map pixel, go through the others, and let go."""
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0], canvas))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point, canvas))
        mouse.up()

    def set(self, **settings: Any) -> None:
        self.page.evaluate("(settings) => spadeStudio.app.set(settings)", settings)

    def brush(self, size: int) -> None:
        self.page.evaluate("(size) => spadeStudio.app.setSize(size)", size)

    def tool(self, name: str) -> None:
        self.page.get_by_role("radio", name=name, exact=False).first.click()

    def choose(self, name: str) -> None:
        self.classes.get_by_role("radio", name=name, exact=True).click()

    @property
    def classes(self) -> Locator:
        return self.page.locator("#classes")


def open_studio(browser: Browser, pair: Pair, **options: Any) -> StudioPage:
    return StudioPage(browser, pair.http_url, **options)
