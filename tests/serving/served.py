"""Shared by the tests of the server: a tiny model, label maps, PNG files, and a search for what a server left."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from spade_core.config import GeneratorConfig

TINY = GeneratorConfig("tiny", 8, True, True, 64, 64, 8, "normal", "batch", 3, False, "spade")
FREE_PORTS: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


def blocks(seed: int, count: int = 1, size: int = 256, classes: int = 16) -> npt.NDArray[np.uint8]:
    """Label maps [count, size, size] of 16x16-pixel blocks, which have few distinct patches as real layouts do."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (count, size // 16, size // 16), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def children(pid: int) -> list[int]:
    """The processes that the process started, from any of its threads."""
    return [child.pid for child in psutil.Process(pid).children()]


def left_behind(run: str) -> list[str]:
    """Processes, shared memory and files of the run whose temporary directory is called `run`."""
    processes = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # the process has ended meanwhile
        if run in text:
            processes.append(text)
    files = [*Path("/dev/shm").glob(f"{run}*"), *Path(tempfile.gettempdir()).glob(f"{run}*")]
    return processes + [str(file) for file in files]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
