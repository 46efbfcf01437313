"""Device memory for the inputs and the images of an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.types import Images


class Buffer:
    """Device memory for one tensor, and page-locked host memory to send or fetch the tensor. Both only grow."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._bytes = 0
        self.address = 0

    def reserve(self, size: int) -> bool:
        """Hold at least `size` bytes. True where the buffer moved to a new address."""
        moved = size > self._bytes
        if moved:
            # Allocate both before assigning either: when memory runs out, the buffer keeps its old state.
            device, host = self._cuda.mem_alloc(size), self._cuda.pagelocked_empty(size, np.uint8)
            self._device, self._host, self._bytes = device, host, size
            self.address = int(device)
        return moved

    def put(self, array: npt.NDArray[Any], stream: Any) -> bool:
        """Send an array. True where the buffer moved to a new address. The stream must be idle."""
        moved = self.reserve(array.nbytes)
        self._host[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._cuda.memcpy_htod_async(self._device, self._host[: array.nbytes], stream)
        return moved

    def images(self, shape: tuple[int, int, int, int], stream: Any) -> Images:
        """Fetch images uint8 of `shape`, [N, H, W, 3]. Waits for the stream."""
        size = int(np.prod(shape))
        self._cuda.memcpy_dtoh_async(self._host[:size], self._device, stream)
        stream.synchronize()
        images: Images = self._host[:size].reshape(shape).copy()
        return images
