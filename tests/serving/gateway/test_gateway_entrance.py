"""`spade serve` with everything that guards its doors: keys, limits, TLS, CORS, proxies, logs."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import trustme
from click.testing import CliRunner
from served import blocks, png, wait_until
from tritonclient.utils import InferenceServerException

from serving.cli.main import main

LABELS = blocks(1, size=64, classes=8)[0]
FILES = {"label_map": png(LABELS), "instance_map": png(LABELS)}
ORIGIN = "https://pages.example"


@dataclass
class Guarded:
    """The running command: where it is, who may come in, and what it wrote."""

    url: str
    grpc: str
    key: str
    keys: Path
    authority: Path
    log: Path

    def client(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.tls(), timeout=60)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def make_key(file: Path, name: str, *options: str) -> str:
    done = CliRunner().invoke(main, ["key", name, "--file", str(file), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@pytest.fixture(scope="module")
def guarded(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    key = make_key(folder / "keys.txt", "painter")
    options = [
        "--weights", tiny_weights, "--precision", "fp32", "--threads", "1", "--decoders", "1",
        "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0",
        "--keys", folder / "keys.txt", "--cors", ORIGIN, "--trusted-proxy", "127.0.0.1", "--json-log",
        "--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem", "--max-body-mib", "1",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", "serve", *map(str, options)],
            stderr=log,
        )
        try:
            wait_until(lambda: "ready: " in (folder / "log").read_text() or process.poll() is not None, "ready", 300)
            text = (folder / "log").read_text()
            assert "ready: " in text, text
            url, grpc = re.findall(r"https://\S+", text)[0], re.findall(r"grpcs://(\S+)", text)[0]
            yield Guarded(url, grpc, key, folder / "keys.txt", folder / "ca.pem", folder / "log")
        finally:
            process.terminate()
            assert process.wait(60) == 0, (folder / "log").read_text()


def test_a_key_lets_in_over_http(guarded: Guarded) -> None:
    with guarded.client(guarded.key) as client:
        assert client.post("/v1/synthesize", files=FILES).status_code == 200
        assert client.post("/v1/synthesize", files=FILES, headers={"X-API-Key": "ignored"}).status_code == 200
    with guarded.client(None) as client:
        assert client.get("/v1/model", headers={"X-API-Key": guarded.key}).status_code == 200


@pytest.mark.parametrize("key", [None, "wrong", "spade-"])
def test_nobody_comes_in_without_a_key(guarded: Guarded, key: str | None) -> None:
    with guarded.client(key) as client:
        for answer in (client.post("/v1/synthesize", files=FILES), client.get("/v1/model"), client.get("/metrics")):
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="spade"'
            assert answer.json()["type"] == "urn:spade:problem:unauthenticated"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path


def test_keys_are_asked_for_over_grpc(guarded: Guarded) -> None:
    with triton_grpc.InferenceServerClient(guarded.grpc, ssl=True, root_certificates=str(guarded.authority)) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="expected a key as `Authorization: Bearer KEY`"):
            client.get_model_metadata("spade")
        headers = {"authorization": f"Bearer {guarded.key}"}
        assert client.get_model_metadata("spade", headers=headers).name == "spade"
        inputs = []
        for name, tensor in {"labels": LABELS[None], "instances": LABELS[None].astype(np.int32)}.items():
            inputs.append(triton_grpc.InferInput(name, list(tensor.shape), {1: "UINT8", 4: "INT32"}[tensor.itemsize]))
            inputs[-1].set_data_from_numpy(tensor)
        assert client.infer("spade", inputs, headers=headers).as_numpy("image").shape == (1, 64, 64, 3)
        with pytest.raises(InferenceServerException, match="one that is not known"):
            client.infer("spade", inputs, headers={"authorization": "Bearer no"})


def test_keys_are_rotated_without_a_restart(guarded: Guarded) -> None:
    old = make_key(guarded.keys, "rotated")
    with guarded.client(old) as first:
        wait_until(lambda: first.get("/v1/model").status_code == 200, "the new key")
        new = make_key(guarded.keys, "rotated")
        lines = guarded.keys.read_text().splitlines()
        guarded.keys.write_text("\n".join([*lines[:-2], lines[-1]]))
        wait_until(lambda: first.get("/v1/model").status_code == 401, "the end of the old key")
        with guarded.client(new) as second:
            assert second.get("/v1/model").status_code == 200
        guarded.keys.write_text("not a line of keys at all\n")
        time.sleep(1.1)  # the file is looked at once a second
        with guarded.client(guarded.key) as kept:
            assert kept.get("/v1/model").status_code == 200
        guarded.keys.write_text("\n".join(lines) + "\n")


def test_a_limit_is_told_before_and_after_it_is_reached(guarded: Guarded) -> None:
    limited = make_key(guarded.keys, "limited", "--per-minute", "2")
    with guarded.client(limited) as client:
        wait_until(lambda: client.get("/v1/model").status_code == 200, "the new key")
        first = client.post("/v1/synthesize", files=FILES)
        assert first.headers["ratelimit-policy"] == '"images";q=2;w=60'
        assert first.headers["ratelimit"].startswith('"images";r=1;t=')
        client.post("/v1/synthesize", files=FILES)
        refused = client.post("/v1/synthesize", files=FILES)
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:spade:problem:too-many-requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert client.get("/v1/model").status_code == 200


def test_a_page_of_a_named_origin_may_call(guarded: Guarded) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with guarded.client(None) as client:
        asked = client.options("/v1/synthesize", headers={"Origin": ORIGIN, **ask})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, ORIGIN)
        refused = client.post("/v1/synthesize", headers={"Origin": ORIGIN})
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Spade-Timings" in refused.headers["access-control-expose-headers"]
        other = client.options("/v1/synthesize", headers={"Origin": "https://other.example", **ask})
        assert "access-control-allow-origin" not in other.headers


def test_every_answer_has_an_id_and_security_headers(guarded: Guarded) -> None:
    with guarded.client(guarded.key) as client:
        answers = [client.get("/v1/model"), client.get("/nothing"), client.post("/v1/synthesize", content=b"x")]
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            assert "server" not in answer.headers
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
        assert client.get("/v1/model", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        odd = client.get("/v1/model", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", odd)


def test_a_body_over_the_limit_is_refused_before_it_is_read(guarded: Guarded) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100_000)

    stated = http.client.HTTPSConnection(guarded.url.removeprefix("https://"), context=guarded.tls(), timeout=60)
    with contextlib.closing(stated):
        headers = {"Content-Length": str(1 << 40), "Authorization": f"Bearer {guarded.key}"}
        stated.request("POST", "/v1/synthesize", headers=headers)  # and nothing of the body
        answer = stated.getresponse()
        assert answer.status == 413
        assert "at most 1048576 bytes but got 1099511627776 bytes" in json.load(answer)["detail"]
    with guarded.client(guarded.key) as client:
        streamed = client.post("/v1/synthesize", content=chunks(), headers={"Content-Type": "image/png"})
        assert streamed.status_code == 413
        assert client.get("/v1/model").status_code == 200


def test_a_request_leaves_a_line_of_json_without_its_key(guarded: Guarded) -> None:
    with guarded.client(guarded.key) as client:
        client.get("/v1/classes?key=secret", headers={"X-Request-Id": "logged-1", "X-Forwarded-For": "192.0.2.7"})
    wait_until(lambda: "logged-1" in guarded.log.read_text(), "the line")
    (line,) = [line for line in guarded.lines() if line.get("request_id") == "logged-1"]
    assert (line["method"], line["path"], line["status"], line["key"]) == ("GET", "/v1/classes", 200, "painter")
    assert line["client"] == "192.0.2.7"  # the proxy is trusted
    assert float(str(line["ms"])) > 0
    assert guarded.key not in guarded.log.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--host", "0.0.0.0"], "expected --keys FILE with --host 0.0.0.0"),
        (["--host", "0.0.0.0", "--direct"], "expected --keys FILE with --host 0.0.0.0"),
        (["--tls-cert", __file__], "--tls-cert and --tls-key together"),
        (["--trusted-proxy", "nowhere"], "--trusted-proxy as an address or a network but got 'nowhere'"),
        (["--cors", "example.org"], "--cors as an origin such as https://example.org"),
        (["--keys", __file__, "--without-keys"], "either --keys or --without-keys"),
        (["--direct", "--json-log"], "--json-log: Triton's own ports know none of it"),
    ],
)
def test_doors_that_should_not_be_open_are_wrong_usage(options: list[str], text: str) -> None:
    done = CliRunner().invoke(main, ["serve", *options])
    assert done.exit_code == 2
    assert text in " ".join(done.output.split())
