"""Ports: free ones differ, taken ones and foreign addresses are errors that say what to change."""

from __future__ import annotations

import socket

import pytest

from serving.triton.ports import PortError, free_ports, reachable


def test_free_ports_differ_and_fixed_ones_stay() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chosen = free_ports("127.0.0.1", {"http_port": 0, "grpc_port": 0, "metrics_port": port})
    assert chosen["metrics_port"] == port
    assert len(set(chosen.values())) == 3
    assert all(chosen.values())


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"grpc_port {port} to be free .* another with --grpc-port"):
            free_ports("127.0.0.1", {"grpc_port": port})


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "expected an address of this machine but got 192.0.2.1; give --host 127.0.0.1"),
        ("no host", "could not look up 'no host'"),
        ("\N{SNOWMAN}" * 80, "could not look up"),
    ],
)
def test_an_address_of_another_machine_is_said_to_be_one(host: str, text: str) -> None:
    with pytest.raises(PortError, match=text):
        free_ports(host, {"http_port": 0})


def test_urls_reach_a_server_that_listens_on_every_address() -> None:
    hosts = ("0.0.0.0", "::", "::1", "10.0.0.1")
    assert [reachable(host) for host in hosts] == ["127.0.0.1", "[::1]", "[::1]", "10.0.0.1"]
