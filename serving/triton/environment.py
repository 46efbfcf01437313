"""The environment of Triton's process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serving.triton.cancelled import RUN
from serving.triton.install import TritonInstall

# glibc adapts to these thresholds after one 32 MB free. Set up front, so that the pages of a request are not returned
# to the system and faulted in again by the next request.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}


def environment(install: TritonInstall, run: str) -> dict[str, str]:
    """This environment, changed so that Triton's Python is this interpreter with its virtual environment.

    `run` is the prefix of the shared memory of this run.
    """
    values = os.environ | {RUN: run}
    # Triton's embedded interpreter finds `python3` on PATH and reads the pyvenv.cfg beside that program.
    _prepend(values, "PATH", [str(Path(sys.executable).parent)])
    _prepend(values, "LD_LIBRARY_PATH", [str(folder) for folder in install.libraries])
    return _MALLOC | values


def _prepend(values: dict[str, str], name: str, entries: list[str]) -> None:
    values[name] = os.pathsep.join([*entries, *filter(None, [values.get(name)])])
