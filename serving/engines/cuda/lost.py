"""Finds out after an error whether the GPU can still be used.

CUDA keeps an error of a kernel, such as an illegal address, for the rest of the process: every later call fails with
it, so the process must end. Other errors, such as too little memory, end with their call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from serving.engines.contract import DeviceLostError


@contextlib.contextmanager
def watched(synchronize: Callable[[], object] | None) -> Iterator[None]:
    """Raise DeviceLostError for an error in the block after which the device is lost; other errors pass.

    `synchronize` waits for the device, and raises if the device is lost; None: there is no GPU.
    """
    try:
        yield
    except Exception as error:
        if synchronize is not None:
            try:
                synchronize()
            except Exception as kept:  # noqa: BLE001 - PyTorch, PyCUDA and our library have classes of their own
                reason = str(kept).strip().partition("\n")[0]
                raise DeviceLostError(
                    f"[engine] expected the GPU to work on after an error but CUDA keeps it: {reason}; "
                    "only a new process can use the GPU"
                ) from error
        raise
