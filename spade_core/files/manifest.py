"""The manifest of a folder: the sha256 of every file, and facts. A folder that differs from its manifest is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spade_core.files.whole_file import write_whole

NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20


class ManifestError(ValueError):
    """A folder that differs from its manifest; the message names every file at fault."""


def write_manifest(folder: Path, facts: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Write manifest.json of `folder`, with the hashes of the files `names`, or of all; on disk when this returns.

    `facts` are JSON values.
    """
    files = {name: sha256(folder / name) for name in (_names(folder) if names is None else sorted(names))}
    text = json.dumps({"format": 1, "facts": dict(facts), "sha256": files}, indent=1)
    write_whole(folder / NAME, lambda draft: draft.write_text(text, encoding="utf-8"))


def verify_manifest(folder: Path, *, alone: bool = True, holds: str | None = None) -> dict[str, Any]:
    """The facts of a folder whose files equal its manifest. Raises ManifestError.

    Args:
        alone: refuse files that the manifest does not list.
        holds: a file that the manifest must list.
    """
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        facts, expected = dict(manifest["facts"]), dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"[manifest] expected a whole {NAME} in '{folder}' but got {error!r}; it was not written to its end, or "
            "changed since: publish it again"
        ) from None
    if holds is not None and holds not in expected:
        listed = ", ".join(sorted(expected)) or "nothing"
        raise ManifestError(
            f"[manifest] expected '{folder}' to hold {holds} but its {NAME} lists {listed}; a {holds} there is of an "
            "earlier export: make it again"
        )
    found = set(_names(folder))
    faults = [f"{name} is missing" for name in sorted(set(expected) - found)]
    if alone:
        faults += [f"{name} is not in the manifest" for name in sorted(found - set(expected))]
    faults += [
        f"{name} has sha256 {actual[:12]}.., not {expected[name][:12]}.."
        for name in sorted(found & set(expected))
        if (actual := sha256(folder / name)) != expected[name]
    ]
    if faults:
        raise ManifestError(
            f"[manifest] expected the files that were published in '{folder}' but got: {'; '.join(faults)}; "
            "publish it again, or roll back"
        )
    return facts


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _names(folder: Path) -> list[str]:
    """Relative paths of the files below `folder`, without the manifest and Python's compiled files."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(name) for name in files if str(name) != NAME and "__pycache__" not in name.parts)
