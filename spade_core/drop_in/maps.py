"""What is known of the label maps that a network has seen: symbols, plans, and codebooks while they are kept."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.drop_in.plan import MapLevel, plan_symbols
from spade_core.drop_in.recognise import SymbolMap, recognise

Size = tuple[int, ...]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class KnownMap:
    """A segmap that has been looked at.

    Attributes:
        found: the segmap's symbols, or why it has none.
        levels: plans by (size, kernel size).
        codebooks: by layer and size, what the entries were made from, and the entries; filled while `keep` is set.
    """

    found: SymbolMap | str
    levels: dict[tuple[Size, int], MapLevel] = field(default_factory=dict)
    codebooks: dict[tuple[int, Size], tuple[object, Tensor]] = field(default_factory=dict)
    keep: bool = False

    def level(self, size: Size, kernel_size: int) -> MapLevel:
        """The plan of the segmap resized by NEAREST to `size`, as `F.interpolate` resizes it."""
        assert isinstance(self.found, SymbolMap)
        key = size, kernel_size
        if key not in self.levels:
            symbols = self.found.symbols
            if symbols.shape[1:] != size:
                # Symbols are below 65535, so float32 holds each exactly.
                symbols = F.interpolate(symbols[:, None].float(), size=size, mode="nearest")[:, 0].long()
            self.levels[key] = plan_symbols(symbols, self.found.count, kernel_size)
        return self.levels[key]


class Maps:
    """The segmaps of a network's calls. Every layer of a call, and later calls with the same tensor, share a map.

    Only the newest segmap is held, and only while its owner holds the tensor; a pinned segmap is held until `unpin`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._newest: _Seen | None = None
        self._pinned: tuple[Tensor, KnownMap] | None = None
        self._told: set[str] = set()

    def tell(self, reason: str) -> None:
        """Log once why a segmap goes through the layers' own convs."""
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("the SPADE layers run their own convolutions: %s", reason)

    def look_up(self, segmap: Tensor) -> KnownMap:
        """What is known of a segmap [N, L, *spatial]; looks at the segmap if it is new."""
        with self._lock:
            if self._pinned is not None and _equal(self._pinned[0], segmap):
                return self._pinned[1]
            if self._newest is None or not self._newest.holds(segmap):
                self._newest = _Seen(segmap)
            return self._newest.known

    def pin(self, segmap: Tensor) -> KnownMap:
        """Hold a segmap's plans and codebooks until `unpin`."""
        with self._lock:
            known = self.look_up(segmap)
            known.keep = True
            self._pinned = segmap.detach().clone(), known
            return known

    def unpin(self) -> None:
        """Let go of the pinned segmap."""
        with self._lock:
            if self._pinned is not None:
                self._pinned[1].keep = False
                self._pinned[1].codebooks.clear()
            self._pinned = None

    def __deepcopy__(self, memo: dict[int, object]) -> Maps:
        return Maps()

    def __reduce__(self) -> tuple[Callable[[], Maps], tuple[()]]:
        return Maps, ()


class _Seen:
    """A segmap that was looked at, without holding its memory."""

    def __init__(self, segmap: Tensor) -> None:
        self.known = KnownMap(recognise(segmap))
        self._segmap = weakref.ref(segmap)
        self._version = None if segmap.is_inference() else segmap._version
        # Tensors of inference mode have no version that would tell of a change in place, so a copy is compared.
        self._copy = segmap.clone() if segmap.is_inference() else None

    def holds(self, segmap: Tensor) -> bool:
        if self._segmap() is not segmap:
            return False
        if self._copy is not None:
            return torch.equal(self._copy, segmap)
        return bool(segmap._version == self._version)


def _equal(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.device == other.device
        and not other.requires_grad
        and torch.equal(one, other)
    )
