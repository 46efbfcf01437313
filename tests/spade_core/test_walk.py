"""The walker of data folders: what is found, what is left out, and that the log counts it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from spade_core.maps.walk import by_stem, find_files, stem_of


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, **options: object) -> list[str]:
    return [p.relative_to(root).as_posix() for p in find_files(root, (".png",), **options)]  # type: ignore[arg-type]


def test_files_of_the_type_are_found_in_any_case_and_as_deep_as_they_lie(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.PNG", "deep/er/c.Png")
    assert names(tmp_path) == ["a.PNG", "b.png", "deep/er/c.Png"]


def test_what_is_left_out_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.png", "._a.png", ".DS_Store", ".git/x.png", "b.txt", "c.txt", "README", "out/a.png")
    assert names(tmp_path, exclude=tmp_path / "out") == ["a.png"]
    (line,) = caplog.messages
    assert line == (
        f"[walk] 1 files in '{tmp_path}'; left out: 1 in the excluded folder '{tmp_path / 'out'}', 2 of type .txt, "
        "1 of type unknown, 3 with a name that begins with a dot"
    )


def test_the_excluded_folder_is_known_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "out/b.png")
    monkeypatch.chdir(tmp_path)
    assert names(tmp_path, exclude=Path("out")) == ["a.png"]


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    touch(tmp_path, "a.png", "b/c.png")
    names(tmp_path)
    assert caplog.messages == []


def test_other_endings_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a_ids.png", "a_colour.png")
    assert names(tmp_path, stem_end="_ids") == ["a_ids.png"]
    assert "left out: 1 whose name does not end in _ids" in caplog.text


def test_linked_folders_and_files_are_entered(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/town/a.png", "data/b.png")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/c.png").symlink_to(tmp_path / "elsewhere/town/a.png")
    (tmp_path / "data/again").symlink_to(tmp_path / "elsewhere/town")
    assert names(tmp_path / "data") == ["again/a.png", "b.png", "c.png", "link/town/a.png"]
    (tmp_path / "root").symlink_to(tmp_path / "data")
    assert len(names(tmp_path / "root")) == 4


def test_loops_of_links_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/other").symlink_to(tmp_path / "b")
    (tmp_path / "b/other").symlink_to(tmp_path / "a")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    found = names(tmp_path)
    assert {"a/x.png", "b/y.png", "a/other/y.png", "b/other/x.png"} <= set(found)
    assert "itself.png" in found, "a link to itself is no folder; to read it is an error that names it"
    assert len(found) == 5
    assert "that link back to a folder around them" in caplog.text


def test_a_stem_is_what_partners_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert stem_of(tmp_path / "town/a_ids.PNG", tmp_path, "_ids") == "town/a"
    files = [tmp_path / name for name in ("a.jpg", "a.png", "b.v2.png")]
    assert by_stem(files, tmp_path) == {"a": files[1], "b.v2": files[2]}
    assert "1 files in" in caplog.text
    assert "'a.jpg' for 'a.png'" in caplog.text
