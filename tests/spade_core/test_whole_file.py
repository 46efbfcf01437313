"""A file is written whole or not at all, whatever interrupts the write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_core.files.whole_file import write_whole

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from spade_core.files.whole_file import write_whole

def write(draft):
    with draft.open("wb") as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

write_whole(Path(sys.argv[1]), write)
"""


class Interrupted(Exception):
    """Stands for any error in the middle of a write."""


@given(old=st.none() | st.binary(max_size=64), new=st.binary(max_size=64), written=st.none() | st.integers(0, 64))
def test_an_interrupted_write_leaves_the_old_file_and_a_finished_one_the_new(
    old: bytes | None, new: bytes, written: int | None
) -> None:
    """`written` is the number of bytes written before the interruption; None lets the write finish."""

    def write(draft: Path) -> None:
        draft.write_bytes(new[:written])
        if written is not None:
            raise Interrupted

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        if old is not None:
            path.write_bytes(old)
        if written is None:
            write_whole(path, write)
        else:
            with pytest.raises(Interrupted):
                write_whole(path, write)
        expected = new if written is None else old
        assert (path.read_bytes() if path.exists() else None) == expected
        assert os.listdir(folder) == ([] if expected is None else ["file"])  # noqa: PTH208 - names alone


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, lambda draft: draft.write_bytes(b"new"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"file": b"old"}


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (draft,) = tmp_path.glob(".file.*.tmp")
    assert draft.read_bytes() == b"half"


def test_the_content_is_on_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(handle: int) -> None:
        steps.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")  # noqa: PTH112
        fsync(handle)

    def seen_replace(draft: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_whole(tmp_path / "file", lambda draft: draft.write_bytes(b"new"))
    assert steps == ["sync file", "rename", "sync folder"]
