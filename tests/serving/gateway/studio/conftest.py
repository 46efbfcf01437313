"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import mimetypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright
from served import FREE_PORTS
from studio_page import StudioPage, open_studio

from serving.gateway.pair import Pair, serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.config import DEMO_WEIGHTS

PAGE = Path(__file__).resolve().parents[4] / "serving" / "gateway" / "studio" / "page"
HOSTS = "MAP painter.test 127.0.0.1"  # a host that is not this machine, for pages that are not trusted so far
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--host-resolver-rules={HOSTS}"]


# Playwright runs an event loop in this thread while it is open, in which no other test could call asyncio.run, so the
# browser ends with its file of tests.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file of tests, with a user-data folder of its own that ends with it."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("expected Chromium on PATH but found none; run scripts/test, or apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """A page that can import the modules of the studio: `await import("/painter/raster.js")`."""
    page = browser.new_page()
    page.route("http://studio.test/**", _from_disk)
    page.goto("http://studio.test/blank")
    yield page
    page.close()


def _from_disk(route: Route) -> None:
    path = PAGE / route.request.url.removeprefix("http://studio.test/")
    if path.name == "blank":
        route.fulfill(body="<!doctype html><title>blank</title>", content_type="text/html")
    elif path.is_file():
        route.fulfill(body=path.read_bytes(), content_type=mimetypes.guess_type(path.name)[0])
    else:
        route.fulfill(status=404)


@pytest.fixture(scope="session")
def studio() -> Iterator[Pair]:
    """A real gateway before a real Triton with the demo model that ships: 128x128, 16 classes, a style input."""
    model = ModelOptions(DEMO_WEIGHTS, precision="fp32", threads=1, decoders=1)
    with serve_pair(ServeOptions(model, **FREE_PORTS)) as pair:
        yield pair


@pytest.fixture
def page(browser: Browser, studio: Pair) -> Iterator[StudioPage]:
    opened = open_studio(browser, studio)
    opened.begin()
    yield opened
    assert opened.errors == []
    assert all(url.startswith((studio.http_url, "blob:")) for url in opened.loaded)  # nothing comes from elsewhere
    opened.context.close()
