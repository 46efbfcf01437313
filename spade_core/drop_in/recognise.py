"""Label maps in the tensors that networks are given: which pixels of a segmap hold the same channel vector.

A one-hot map holds one vector for each class. A map with instance edges, with a channel of noise that is constant over
an image, or with a style for each region holds few vectors too. Soft labels differ at nearly every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SAMPLED = 4096
_MOST_OF_SAMPLE = 0.25  # a map with more distinct vectors among the sampled pixels is soft
MAX_SYMBOLS = 65534  # the plan holds symbols and "outside the image" in 16 bits
_AS_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class SymbolMap:
    """A segmap as symbols.

    Attributes:
        symbols: int64 [N, *spatial], below `count`, S.
        vectors: [S, L], the channel vector of each symbol; None for a one-hot map.
        classes: int64 [S], the channel that is 1 for each symbol of a one-hot map; None for other maps.
    """

    symbols: Tensor
    count: int
    vectors: Tensor | None = None
    classes: Tensor | None = None


def recognise(segmap: Tensor) -> SymbolMap | str:
    """The symbols of a segmap [N, L, *spatial], or why the segmap has no symbols. Exact: bits are compared."""
    if segmap.requires_grad:
        return "its label map needs a gradient"
    # Autocast would round the channel numbers. Tensors of inference mode could not serve a later training step.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(segmap.device.type, enabled=False):
        found = _one_hot(segmap)
        return _by_vector(segmap) if found is None else found


@torch.no_grad()
def still_holds(found: SymbolMap | str, segmap: Tensor) -> bool:
    """Whether a segmap that was recognised as `found` is as it was, to the bit; False for one without symbols."""
    if isinstance(found, str) or segmap.requires_grad:
        return False
    if found.vectors is None:
        assert found.classes is not None
        pixels = segmap.numel() // segmap.shape[1]
        ones = segmap.gather(1, found.classes[found.symbols][:, None]) == 1
        return bool(ones.all()) and int(torch.count_nonzero(segmap)) == pixels
    bits, rows = (each.contiguous().view(_AS_INTEGERS[each.element_size()]) for each in (segmap, found.vectors))
    return all(torch.equal(rows[:, channel][found.symbols], bits[:, channel]) for channel in range(bits.shape[1]))


def _one_hot(segmap: Tensor) -> SymbolMap | None:
    channels = segmap.shape[1]
    if segmap.numel() == 0 or int(torch.count_nonzero(segmap)) != segmap.numel() // channels:
        return None
    if segmap.dtype in (torch.float32, torch.float64):
        # A product with the channel numbers reads the map once and in order. Whether each is a channel is checked
        # below.
        numbers = torch.arange(channels, dtype=segmap.dtype, device=segmap.device)
        found = torch.matmul(numbers, segmap.flatten(2)).view(segmap.shape[0], *segmap.shape[2:])
        symbols = found.nan_to_num(-1, -1, -1).clamp(-1, channels).long()
        if not bool(((symbols >= 0) & (symbols < channels)).all()):
            return None
    else:
        symbols = segmap.argmax(1)
    if not bool((segmap.gather(1, symbols[:, None]) == 1).all()):
        return None
    present = torch.bincount(symbols.flatten(), minlength=channels) > 0  # [L]
    return SymbolMap((present.cumsum(0) - 1)[symbols], int(present.sum()), classes=present.nonzero()[:, 0])


def _by_vector(segmap: Tensor) -> SymbolMap | str:
    bits = segmap.contiguous().view(_AS_INTEGERS[segmap.element_size()]).flatten(2)  # [N, L, P]
    pixels = bits.shape[0] * bits.shape[2]
    step = max(1, bits.shape[2] // _SAMPLED)
    sampled = _hash(bits[:, :, ::step])
    if len(torch.unique(sampled)) > max(64, _MOST_OF_SAMPLE * sampled.numel()):
        return "its label map is soft or made of features: nearly every pixel holds another channel vector"
    keys, symbols = torch.unique(_hash(bits), return_inverse=True)  # [S], [N, P]
    if len(keys) > MAX_SYMBOLS:
        return f"its label map holds {len(keys)} distinct channel vectors, more than {MAX_SYMBOLS}"
    first = torch.full((len(keys),), pixels, dtype=torch.int64, device=bits.device)
    places = torch.arange(pixels, device=bits.device)
    first.scatter_reduce_(0, symbols.flatten(), places, "amin")
    image, place = first // bits.shape[2], first % bits.shape[2]
    of_symbol = bits[image, :, place]  # [S, L]
    for channel in range(bits.shape[1]):  # the hash only decides where to look
        if not torch.equal(of_symbol[:, channel][symbols], bits[:, channel]):
            return "its label map holds channel vectors whose hashes collide"
    vectors = segmap.flatten(2)[image, :, place]
    return SymbolMap(symbols.view(segmap.shape[0], *segmap.shape[2:]), len(keys), vectors)


def _hash(bits: Tensor) -> Tensor:
    """A number for the channel vector of each pixel: integers [N, L, P] -> int64 [N, P]."""
    generator = torch.Generator().manual_seed(0x5BADE)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator) * 2 + 1
    total = torch.zeros((bits.shape[0], bits.shape[2]), dtype=torch.int64, device=bits.device)
    for channel, factor in enumerate(factors.tolist()):  # wraps around; the order of the sum does not matter
        total += bits[:, channel].long() * factor
    return total
