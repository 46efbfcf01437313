"""Announcing a server to the publishers of its repository."""

from __future__ import annotations

import json
from pathlib import Path

from serving.triton.announcement import SERVER_FILE, announcement, ask_server


def test_the_file_holds_the_address_for_its_owner_only_and_goes_at_the_end(tmp_path: Path) -> None:
    with announcement(tmp_path, "grpc://127.0.0.1:1", "s"):
        file = tmp_path / SERVER_FILE
        assert json.loads(file.read_text()) == {"grpc_url": "grpc://127.0.0.1:1", "secret": "s"}
        assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_later_server_stays(tmp_path: Path) -> None:
    with announcement(tmp_path, "grpc://127.0.0.1:1", "s"), announcement(tmp_path, "grpc://127.0.0.1:2", "t"):
        pass
    with announcement(tmp_path, "grpc://127.0.0.1:1", "s"):
        (tmp_path / SERVER_FILE).unlink()
        (tmp_path / SERVER_FILE).write_text("of a later server")
    assert (tmp_path / SERVER_FILE).read_text() == "of a later server"


def test_without_a_running_server_nobody_is_asked(tmp_path: Path) -> None:
    ask_server(tmp_path, "spade")
    (tmp_path / SERVER_FILE).write_text('{"grpc_url": "grpc://127.0.0.1:9", "secret": ""}')  # nobody holds its lock
    ask_server(tmp_path, "spade")
