"""The description of the calls, and the page that shows it, without anything from another host."""

from __future__ import annotations

import re

import httpx

from serving.gateway.pair import Pair


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
