"""What is said where the gateway does not start."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from serving.gateway.doors import OPEN, Doors, DoorsError
from serving.gateway.ward import GatewayWard
from serving.supervisor.status import StatusPage
from serving.triton.server import ServeError, ServeOptions


@contextlib.contextmanager
def ward(start_timeout_s: float, code: str | None = None) -> Iterator[GatewayWard]:
    """A gateway before no Triton. `code` stands for the program, which else is the real one."""
    with contextlib.ExitStack() as stack:
        names = ("http_port", "grpc_port", "metrics_port")
        sockets = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        status = stack.enter_context(contextlib.closing(StatusPage()))
        server = SimpleNamespace(grpc_url="grpc://127.0.0.1:1", metrics_url="http://127.0.0.1:1/metrics", secret="s")
        triton: Any = SimpleNamespace(server=server, status=status)
        prepared = None
        if code is not None:
            prepared = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        options = ServeOptions(grpc_port=0, start_timeout_s=start_timeout_s)
        found = GatewayWard(options, OPEN, triton, sockets, prepared)
        try:
            yield found
        finally:
            found.kill()


def test_a_gateway_that_takes_too_long_is_ended_and_told() -> None:
    with ward(0.3, "import time; time.sleep(600)") as slow:
        with pytest.raises(
            ServeError, match=r"open doors within 0\.3 s but the gateway still starts; give more with --start-timeout"
        ):
            slow.start(lambda _: None)
        assert slow.look() is not None  # it has ended


@pytest.mark.parametrize("code", ["raise SystemExit(7)", "input(); raise SystemExit(7)"])
def test_the_status_of_a_gateway_that_ends_is_told(code: str) -> None:
    with (
        ward(60, code) as ended,
        pytest.raises(ServeError, match="gateway to start but it ended with status 7; its reason is above"),
    ):
        ended.start(lambda _: None)


def test_the_wait_is_reported_and_may_be_given_up() -> None:
    class GivenUpError(Exception):
        pass

    def give_up(text: str) -> None:
        raise GivenUpError(text)

    with ward(60, "import time; time.sleep(600)") as slow, pytest.raises(GivenUpError, match="opening the doors"):
        slow.start(give_up)


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Uvicorn imports what speaks WebSocket when a door opens."""
    (tmp_path / "websockets").mkdir()
    (tmp_path / "websockets" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='websockets')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ward(120) as lacking, pytest.raises(ServeError, match="ended with status 1"):
        lacking.start(lambda _: None)
    said = capfd.readouterr().err
    assert "[gateway] expected the package websockets but it is not installed; run `pip install" in said


def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("one", "other"):
        made = authority.issue_cert("localhost")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    (tmp_path / "nonsense").write_text("nonsense")

    def check(certificate: str, key: str) -> None:
        Doors(tls_cert=str(tmp_path / certificate), tls_key=str(tmp_path / key)).check("127.0.0.1")

    check("one.crt", "one.key")
    for certificate, key in (("nonsense", "one.key"), ("one.crt", "nonsense"), ("one.crt", "other.key")):
        with pytest.raises(DoorsError, match=f"--tls-key as its key .* but got '.*/{certificate}' and '.*/{key}': "):
            check(certificate, key)
