"""The description of the calls, and the page that shows it, without anything from another host."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.pair import Pair

_SPEC = importlib.util.spec_from_file_location("fuzz_http", Path(__file__).parents[3] / "scripts" / "fuzz_http.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
fuzz = _MODULE.fuzz


def test_every_call_is_described_with_an_example_or_a_schema(gateway: Pair) -> None:
    described = httpx.get(f"{gateway.http_url}/openapi.json").json()
    calls = {path: next(iter(methods)) for path, methods in described["paths"].items()}
    assert calls.items() >= {
        "/v1/synthesize": "post", "/v1/images/edits": "post", "/v1/classes": "get", "/v1/model": "get",
        "/healthz": "get", "/readyz": "get", "/metrics": "get",
    }.items()  # fmt: skip
    assert "Problem" in described["components"]["schemas"]
    for path, method in calls.items():
        assert described["paths"][path][method]["summary"], path


def test_the_page_takes_nothing_from_elsewhere(gateway: Pair) -> None:
    page = httpx.get(f"{gateway.http_url}/docs")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"].split("style-src")[0]
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(names) == 5
    assert not [name for name in names if "//" in name]
    for name in names[1:]:
        asset = httpx.get(f"{gateway.http_url}/docs/{name}")
        assert asset.status_code == 200, name
        assert len(asset.content) > 100
    assert "SwaggerUIBundle" in httpx.get(f"{gateway.http_url}/docs/swagger-ui-bundle.js").text
    assert httpx.get(f"{gateway.http_url}/docs/other.js").status_code == 404


def test_the_description_is_of_the_served_model(gateway: Pair, tiny_gateway: Pair) -> None:
    def form(pair: Pair) -> dict[str, Any]:
        described = httpx.get(f"{pair.http_url}/openapi.json").json()
        content = described["paths"]["/v1/synthesize"]["post"]["requestBody"]["content"]
        schema: dict[str, Any] = content["multipart/form-data"]["schema"]
        return schema

    assert "instance_map" not in form(gateway)["properties"]
    assert "seed" in form(gateway)["properties"]
    assert form(tiny_gateway)["required"] == ["label_map", "instance_map"]
    assert "seed" not in form(tiny_gateway)["properties"]


@pytest.mark.parametrize("model", ["gateway", "tiny_gateway"])
def test_made_up_requests_find_no_fault(request: pytest.FixtureRequest, model: str) -> None:
    """A few of each kind. `scripts/fuzz_http.py URL 1000` tries thousands."""
    done = fuzz(request.getfixturevalue(model).http_url, 3)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert int(re.findall(r"(\d+) generated", done.stdout)[0]) > 100
