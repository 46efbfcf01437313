"""The temporary directory of one running server: made, swept after crashes, removed with its shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "spade-serve-"
_SHARED_MEMORY = Path("/dev/shm")  # Triton's shared memory regions lie here, whatever TMPDIR says


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A temporary directory for the block. Its name is also the prefix of the run's shared memory; both are removed."""
    _sweep()
    run = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with (run / "lock.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The rename comes after locking, so a file called `lock` without a holder always belongs to a dead run.
        (run / "lock.new").rename(run / "lock")
        try:
            yield run
        finally:
            _remove(run)


def _sweep() -> None:
    """Remove what runs left behind that were killed with SIGKILL: nobody holds their locks."""
    for run in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (run / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(run)


def remove_shared_memory(run: Path) -> None:
    """Remove the shared memory that killed processes of a run left behind."""
    for region in _SHARED_MEMORY.glob(f"{run.name}*"):
        with contextlib.suppress(FileNotFoundError):
            region.unlink()


def _remove(run: Path) -> None:
    remove_shared_memory(run)
    shutil.rmtree(run, ignore_errors=True)
