"""The kernels for a rehearsal: their own sources, compiled for the CPU with the emulator of the tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def emulated_library() -> Iterator[Path]:
    """The library of emulated kernels, for the block. Takes a minute of a C++ compiler, and the checkout's tests."""
    from tests.kernels.cuda_emulated import compile_emulated

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "libspade_cuda_emulated.so")
        compile_emulated(path)
        yield path
