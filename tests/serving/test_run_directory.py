"""Run directories: made, removed, and swept after a run that was killed."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

import pytest

from serving.triton import run_directory


def test_the_next_run_removes_what_a_killed_one_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run_directory, "_SHARED_MEMORY", tmp_path / "shm")
    dead, living, foreign = (tmp_path / f"spade-serve-{name}" for name in ("dead", "living", "foreign"))
    for folder in (dead, living, foreign, tmp_path / "shm"):
        folder.mkdir()
    (dead / "lock").touch()
    (tmp_path / "shm" / "spade-serve-dead-region").touch()
    (tmp_path / "shm" / "spade-serve-living-region").touch()
    with (living / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with run_directory.run_directory() as run:
            assert run.is_dir()
            assert not dead.exists()
            assert living.exists()
            assert foreign.exists()
    assert not run.exists()
    assert [region.name for region in (tmp_path / "shm").iterdir()] == ["spade-serve-living-region"]
