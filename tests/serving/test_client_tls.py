"""The client over TLS: a real server behind a TLS proxy with a certificate that the test makes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from click.testing import CliRunner
from served import blocks, png
from tls_proxy import make_context, tls_proxy, write_authority

from serving.cli.main import main
from serving.client.client import Client, ServerError
from serving.triton.server import Server

SCHEMES = ("grpcs", "https")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_authority(authority, tmp_path_factory.mktemp("ca") / "ca.pem")


def port_of(server: Server, scheme: str) -> int:
    return server.options.grpc_port if scheme == "grpcs" else server.options.http_port


@pytest.fixture(scope="module", params=SCHEMES)
def url(request: pytest.FixtureRequest, demo_server: Server, authority: trustme.CA) -> Iterator[str]:
    with tls_proxy(port_of(demo_server, request.param), make_context(authority, "127.0.0.1")) as port:
        yield f"{request.param}://127.0.0.1:{port}"


def test_images_over_tls_are_the_images_without(demo_server: Server, url: str, ca_file: Path) -> None:
    maps = blocks(3, count=2)
    with Client(demo_server.grpc_url) as plain, Client(url, ca_file=ca_file) as client:
        client.check_ready()
        np.testing.assert_array_equal(client.synthesize(maps, seed=4).images, plain.synthesize(maps, seed=4).images)
        files = [png(maps[0])]
        assert client.synthesize_image(files, seed=4).images == plain.synthesize_image(files, seed=4).images
        assert client.info() == plain.info()


def test_the_command_line_reaches_a_server_over_tls(url: str, ca_file: Path, tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(png(blocks(3)[0]))
    arguments = ["synthesize", "--labels", str(tmp_path / "map.png"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*arguments, "--server", url, "--ca-file", str(ca_file)])
    assert done.exit_code == 0, done.output
    with Client(url, ca_file=ca_file) as client:
        assert (tmp_path / "out" / "map.png").read_bytes() == client.synthesize_image([png(blocks(3)[0])]).images[0]
    done = CliRunner().invoke(main, [*arguments, "--ca-file", str(ca_file)])
    assert done.exit_code == 2
    assert "--ca-file: there is no connection without --server" in done.output


def test_a_certificate_of_an_unknown_authority_is_refused(url: str, tmp_path: Path) -> None:
    other = write_authority(trustme.CA(), tmp_path / "other.pem")
    for known in (None, other):
        with Client(url, ca_file=known) as client:
            assert not client.ready()
            with pytest.raises(ServerError, match=f"certificate for {url} from a known authority .* ca_file") as caught:
                client.synthesize(blocks(1))
            assert caught.value.status == "unauthenticated"
            assert not caught.value.retryable


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_for_another_host_is_refused(
    demo_server: Server, authority: trustme.CA, ca_file: Path, scheme: str
) -> None:
    with (
        tls_proxy(port_of(demo_server, scheme), make_context(authority, "elsewhere.example")) as port,
        Client(f"{scheme}://127.0.0.1:{port}", ca_file=ca_file) as client,
        pytest.raises(ServerError, match="the host name that the server's certificate holds") as caught,
    ):
        client.synthesize(blocks(1))
    assert caught.value.status == "unauthenticated"


@pytest.mark.parametrize(
    ("scheme", "text"),
    [("grpcs", "the port speaks no TLS; give the port"), ("https", "it failed .* check that the port speaks TLS")],
)
def test_a_port_without_tls_is_said_to_have_none(demo_server: Server, ca_file: Path, scheme: str, text: str) -> None:
    url = f"{scheme}://127.0.0.1:{port_of(demo_server, scheme)}"
    with Client(url, ca_file=ca_file) as client, pytest.raises(ServerError, match=f"{url} but {text}"):
        client.synthesize(blocks(1))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_server_the_error_says_so(ca_file: Path, scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        with Client(url, ca_file=ca_file) as client, pytest.raises(ServerError, match=f"a server at {url}") as caught:
            client.synthesize(blocks(1))
        assert caught.value.retryable


def test_a_wrong_ca_file_is_an_error_at_once(ca_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ca_file as certificates in PEM but got '.*absent\.pem'"):
        Client("grpcs://127.0.0.1", ca_file=tmp_path / "absent.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ValueError, match=r"ca_file as certificates in PEM but got '.*empty\.pem'"):
        Client("https://127.0.0.1", ca_file=empty)
    with pytest.raises(ValueError, match=r"ca_file with grpcs:// or https:// only but got it with http://"):
        Client("http://127.0.0.1", ca_file=ca_file)
