"""The one walker of data folders: training, evaluation, `synthesize` and benchmarks find their files here."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

_log = logging.getLogger(__name__)

_HIDDEN = "with a name that begins with a dot"
_LOOP = "that link back to a folder around them"
_EXCLUDED = "in the excluded folder '{}'"

Identity = tuple[int, int]  # device and inode of a folder


def find_files(root: Path, suffixes: Sequence[str], *, stem_end: str = "", exclude: Path | None = None) -> list[Path]:
    """Find the files below `root`, at any depth, sorted. Linked folders are entered, but not in circles.

    One line of the log counts, by kind, the files and folders that are left out.

    Args:
        suffixes: file types in lower case, such as `.png`; a file's own may be in any case.
        stem_end: the end that a file's name must have before its suffix.
        exclude: a folder that is not entered.

    Raises OSError for a folder that cannot be read.
    """
    left_out: Counter[str] = Counter()
    found = []
    for path in _walk(root, frozenset(), None if exclude is None else exclude.resolve(), left_out):
        if path.suffix.lower() not in suffixes:
            left_out[f"of type {path.suffix.lower() or 'unknown'}"] += 1
        elif not path.stem.endswith(stem_end):
            left_out[f"whose name does not end in {stem_end}"] += 1
        else:
            found.append(path)
    if left_out:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        _log.warning("[walk] %d files in '%s'; left out: %s", len(found), root, counts)
    return sorted(found)


def _walk(folder: Path, above: frozenset[Identity], exclude: Path | None, left_out: Counter[str]) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        left_out[_LOOP] += 1
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        path = folder / entry.name
        # DirEntry mostly needs no system call. Only Path.is_dir has an answer for a link to itself.
        is_folder = path.is_dir() if entry.is_symlink() else entry.is_dir()
        if entry.name.startswith("."):
            left_out[_HIDDEN] += 1
        elif is_folder and exclude is not None and path.resolve() == exclude:
            left_out[_EXCLUDED.format(path)] += 1
        elif is_folder:
            yield from _walk(path, above | {identity}, exclude, left_out)
        else:
            yield path


def by_stem(files: Sequence[Path], root: Path, stem_end: str = "") -> dict[str, Path]:
    """Index files below `root` by `stem_of`.

    Of files that differ in their suffix only, the last by name is taken, and a line of the log counts the others.
    """
    named = {stem_of(path, root, stem_end): path for path in files}
    if len(named) < len(files):
        kept = set(named.values())
        dropped = [path for path in files if path not in kept]
        twin = named[stem_of(dropped[0], root, stem_end)]
        _log.warning(
            "[walk] %d files in '%s' are left out, since others have their names and later suffixes: '%s' for '%s'",
            len(dropped), root, dropped[0].name, twin.name,
        )  # fmt: skip
    return named


def stem_of(path: Path, root: Path, stem_end: str = "") -> str:
    """The name that a file shares with its partners in other folders: `root`/town/a_label.PNG -> town/a."""
    return path.relative_to(root).with_suffix("").as_posix().removesuffix(stem_end)
