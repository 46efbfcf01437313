"""How `spade_image` tells `spade` that the client of a waiting request has gone.

A request from model to model cannot be cancelled in Triton 24.10. Both models run on one machine, so an empty file in
shared memory says it, and `spade` looks for the file when the request's turn comes. The files go with the run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

RUN = "SPADE_RUN"
"""Environment variable of Triton and its models: the run's name, with which all shared memory of the run begins."""

_FOLDER = Path("/dev/shm")
_TOKEN = re.compile(r"[0-9a-f]{16}")


def mark_cancelled(token: str) -> None:
    """Say that the client of the request `token` has gone."""
    _file(token).touch()


def forget(token: str) -> None:
    """The request `token` is answered."""
    _file(token).unlink(missing_ok=True)


def was_cancelled(token: str) -> bool:
    """Whether the client of the request `token` has gone."""
    return _file(token).exists()


def read_token(value: object) -> str | None:
    """A token out of a request; None for all but 16 hex digits, since a token becomes part of a path."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None


def _file(token: str) -> Path:
    return _FOLDER / f"{os.environ.get(RUN, 'spade')}-cancelled-{token}"
