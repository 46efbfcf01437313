"""Asks the model for the styles of photos, and keeps the last ones."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from serving.gateway.upstream import Upstream

_KEPT = 256  # styles, of a kilobyte each


class PhotoStyles:
    """The styles of photos, by the encoder of the served weights.

    Args:
        upstream: the way to the model.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._kept: OrderedDict[tuple[bytes, str], npt.NDArray[np.float32]] = OrderedDict()
        self._turn = asyncio.Semaphore(1)  # the model makes one at a time, beside the engine

    async def style(self, photo: bytes, weights: str) -> npt.NDArray[np.float32]:
        """The style [1, 256] of an image file. `weights` names those that are served. Raises UpstreamError."""
        key = (hashlib.sha256(photo).digest(), weights)
        found = self._kept.get(key)
        if found is None:
            async with self._turn:
                file = np.frombuffer(photo, np.uint8)[None]
                answer = await self._upstream.ask("spade", {"photo": file}, ["style"], again=True)
            found = self._kept[key] = answer.as_numpy("style")
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found
