"""Write files whole or not at all: written beside the target, synced to disk, then renamed over the target."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file `path` whole or not at all; the file is on disk when this returns.

    `write(draft)` writes the new content to `draft`, a path in the folder of `path`. A reader, and a process killed at
    any moment, meets the old file or the new one, never a part. The folder must exist.

    Raises what `write` raises, and OSError; the old file then stays and the draft is removed. A killed process leaves
    its draft, `.<name>.<8 hex digits>.tmp`, behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(draft)
        sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return once the file, or the names in the folder, at `path` would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
