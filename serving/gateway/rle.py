"""Run-length code of label maps on the wire: three bytes a run, as `studio/page/painter/rle.js` has it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LONGEST = 65535  # pixels of one run


def encode_runs(labels: npt.NDArray[np.uint8]) -> bytes:
    """Labels uint8 of any shape, row by row -> runs of (label, count low byte, count high byte), counts 1..65535."""
    flat = labels.reshape(-1)
    if not flat.size:
        return b""
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    # A run that is longer than a count can say starts again every LONGEST pixels.
    lengths = np.diff(starts, append=flat.size)
    pieces = -(-lengths // LONGEST)
    first = np.repeat(starts, pieces)
    piece = np.arange(first.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = first + piece * LONGEST
    counts = np.diff(starts, append=flat.size)
    return np.column_stack([flat[starts], counts & 255, counts >> 8]).astype(np.uint8).tobytes()


def decode_runs(code: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The inverse: labels uint8 [height, width]. Raises ValueError for a code of another size."""
    if len(code) % 3:
        raise ValueError(f"[live] expected runs of 3 bytes (label, count) but got {len(code)} bytes; send whole runs")
    runs = np.frombuffer(code, np.uint8).reshape(-1, 3)
    counts = runs[:, 1].astype(np.int64) | runs[:, 2].astype(np.int64) << 8
    # The sum is checked before a pixel is unpacked: a short message cannot ask for much memory.
    if int(counts.sum()) != height * width or not counts.all():
        raise ValueError(
            f"[live] expected runs of 1..{LONGEST} pixels, together {height * width} for {height} rows of {width}, "
            f"but got {len(runs)} runs of together {int(counts.sum())}; send each pixel of the rectangle once"
        )
    return np.repeat(runs[:, 0], counts).reshape(height, width)
