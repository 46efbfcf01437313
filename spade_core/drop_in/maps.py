"""What is known of the label maps that a network has seen: symbols, plans, and codebooks while they are kept."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.drop_in.parameters import ParameterState
from spade_core.drop_in.plan import MapLevel, plan_symbols
from spade_core.drop_in.recognise import MAX_SYMBOLS, SymbolMap, recognise, still_holds

Size = tuple[int, ...]

NEWEST = 8  # sizes of one map in a deep network

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class KnownMap:
    """A segmap that has been looked at.

    Attributes:
        found: the segmap's symbols, or why it has none.
        levels: plans by (size, kernel size). `regions`: plans in which no two images share a symbol.
        joined: plans of the pixels of this map and of others with it, by size and the other maps.
        codebooks: by layer and size, what the entries were made from, and the entries; filled while `keep` is set.
    """

    found: SymbolMap | str
    levels: dict[tuple[Size, int], MapLevel] = field(default_factory=dict)
    regions: dict[tuple[Size, int], MapLevel] = field(default_factory=dict)
    joined: dict[tuple[Size, tuple[int, ...]], tuple[tuple[KnownMap, ...], MapLevel]] = field(default_factory=dict)
    codebooks: dict[tuple[int, Size], tuple[ParameterState, Tensor]] = field(default_factory=dict)
    keep: bool = False

    def level(self, size: Size, kernel_size: int) -> MapLevel:
        """The plan of the segmap resized by NEAREST to `size`, as `F.interpolate` resizes it."""
        key = size, kernel_size
        if key not in self.levels:
            self.levels[key] = plan_symbols(self.symbols(size), self.symbol_map.count, kernel_size)
        return self.levels[key]

    def region_level(self, size: Size, kernel_size: int) -> MapLevel:
        """`level` with symbols of one image each: symbol s of image n is n * count + s."""
        key = size, kernel_size
        if key not in self.regions:
            symbols, count = self.symbols(size), self.symbol_map.count
            images = torch.arange(len(symbols), device=symbols.device).view(-1, *[1] * len(size))
            self.regions[key] = plan_symbols(symbols + images * count, len(symbols) * count, kernel_size)
        return self.regions[key]

    def join(self, others: tuple[KnownMap, ...], size: Size) -> MapLevel | None:
        """The plan of single pixels of this map and the others together, no symbol in two images; None if too many."""
        if not others:
            return None if self.symbol_map.count * self.images > MAX_SYMBOLS else self.region_level(size, 1)
        key = size, tuple(id(other) for other in others)
        if key not in self.joined:
            symbols = self.symbols(size)
            for other in others:
                symbols = symbols * other.symbol_map.count + other.symbols(size)
            images = torch.arange(len(symbols), device=symbols.device).view(-1, *[1] * len(size))
            keys, together = torch.unique(symbols + images * (int(symbols.max()) + 1), return_inverse=True)
            if len(keys) > MAX_SYMBOLS:
                return None
            if len(self.joined) >= NEWEST:
                self.joined.clear()
            self.joined[key] = others, plan_symbols(together, len(keys), 1)
        return self.joined[key][1]

    def symbols(self, size: Size) -> Tensor:
        """The symbols int64 [N, *size] of the segmap resized by NEAREST, as `F.interpolate` resizes it."""
        symbols = self.symbol_map.symbols
        if symbols.shape[1:] == size:
            return symbols
        # Symbols are below 65535, so float32 holds each exactly.
        return F.interpolate(symbols[:, None].float(), size=size, mode="nearest")[:, 0].long()

    @property
    def images(self) -> int:
        """How many images the segmap has."""
        return len(self.symbol_map.symbols)

    @property
    def symbol_map(self) -> SymbolMap:
        """The segmap's symbols, where it has some."""
        assert isinstance(self.found, SymbolMap)
        return self.found


class Maps:
    """The segmaps of a network's calls. Every layer of a call, and later calls with the same tensor, share a map.

    The newest few segmaps are known, each while its owner holds the tensor: networks that resize the map themselves
    hand a tensor to each level. A pinned segmap is held until `unpin`, at every size that NEAREST makes of it; several
    may be pinned.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._newest: deque[_Seen] = deque(maxlen=NEWEST)
        self._pins: list[_Pin] = []
        self._told: set[str] = set()

    def tell(self, what: str) -> None:
        """Log something once."""
        if what not in self._told:
            self._told.add(what)
            _log.warning(what)

    def look_up(self, segmap: Tensor, layer: object = None, bare: bool = False) -> KnownMap:
        """What is known of a segmap [N, L, *spatial], or [N, *spatial] if `bare`; looks at the segmap if it is new.

        A `layer` that asks again for the same tensor does so in a new call of the network: the segmap's values are
        compared, since they may lie in memory that a NumPy array or `segmap.data` changed unseen.
        """
        with self._lock:
            for pin in self._pins:
                if (pinned := pin.find(segmap)) is not None:
                    return pinned
            for seen in self._newest:
                if seen.holds(segmap, layer, bare):
                    return seen.known
            others = (seen for seen in self._newest if not seen.outdated(segmap))
            self._newest = deque(others, maxlen=NEWEST)
            self._newest.append(_Seen(segmap, layer, bare))
            return self._newest[-1].known

    def pin(self, segmap: Tensor) -> _Pin:
        """Hold a segmap's plans and codebooks until `unpin`."""
        with self._lock:
            pin = _Pin(segmap, self.look_up(segmap, layer=self))
            self._pins.append(pin)
            return pin

    def unpin(self, pin: _Pin) -> None:
        """Let go of a pinned segmap."""
        with self._lock:
            self._pins.remove(pin)

    def __deepcopy__(self, memo: dict[int, object]) -> Maps:
        return Maps()

    def __reduce__(self) -> tuple[Callable[[], Maps], tuple[()]]:
        return Maps, ()


class _Pin:
    """A segmap that is held, at every size that was asked for."""

    def __init__(self, segmap: Tensor, known: KnownMap) -> None:
        self.found = known.found
        with torch.inference_mode(False), torch.no_grad():
            self._whole = segmap.clone()
        held = KnownMap(known.found, levels=known.levels, regions=known.regions, keep=True)
        self._sizes = {tuple(segmap.shape[2:]): (self._whole, held)}

    def find(self, segmap: Tensor) -> KnownMap | None:
        """What is known of the segmap, if it is the held one, or the held one resized by NEAREST."""
        size = tuple(segmap.shape[2:])
        if (at_size := self._sizes.get(size)) is not None:
            return at_size[1] if _equal(at_size[0], segmap) else None
        whole = self._whole
        if whole.shape[:2] != segmap.shape[:2] or whole.dim() != segmap.dim() or not whole.is_floating_point():
            return None
        with torch.inference_mode(False), torch.no_grad():
            resized = F.interpolate(whole, size=size, mode="nearest")
        if not _equal(resized, segmap):
            return None
        self._sizes[size] = resized, KnownMap(recognise(resized), keep=True)
        return self._sizes[size][1]


class _Seen:
    """A segmap that was looked at, without holding its memory."""

    def __init__(self, segmap: Tensor, layer: object, bare: bool) -> None:
        self.known = KnownMap(recognise(segmap[:, None] if bare else segmap))
        self._segmap = weakref.ref(segmap)
        # Tensors of inference mode have no version that tells of a change in place; each look-up compares their values.
        self._version = None if segmap.is_inference() else segmap._version
        self._layers = set() if layer is None else {id(layer)}  # that asked since the values were compared

    def outdated(self, segmap: Tensor) -> bool:
        """Whether the tensor is gone, or is `segmap`, which has changed since."""
        return self._segmap() is None or self._segmap() is segmap

    def holds(self, segmap: Tensor, layer: object, bare: bool) -> bool:
        """Whether `segmap` is the segmap that was looked at, unchanged."""
        if self._segmap() is not segmap or (self._version is not None and segmap._version != self._version):
            return False
        if self._version is None or id(layer) in self._layers:
            self._layers.clear()
            found, values = self.known.found, segmap[:, None] if bare else segmap
            if isinstance(found, str) or not still_holds(found, values):
                return False
        if layer is not None:
            self._layers.add(id(layer))
        return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.device == other.device
        and not other.requires_grad
        and torch.equal(one, other)
    )
