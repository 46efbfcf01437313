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
        symbols: int64 [N, *spatial], rows of `vectors`.
        vectors: [S, L], the channel vector of each symbol; None for the L unit vectors of a one-hot map.
        count: S, the number of symbols.
    """

    symbols: Tensor
    vectors: Tensor | None
    count: int


def recognise(segmap: Tensor) -> SymbolMap | str:
    """The symbols of a segmap [N, L, *spatial], or why the segmap has no symbols. Exact: bits are compared."""
    if segmap.requires_grad:
        return "its label map needs a gradient"
    found = _one_hot(segmap)
    return _by_vector(segmap) if found is None else found


def _one_hot(segmap: Tensor) -> SymbolMap | None:
    symbols = segmap.argmax(1)
    if symbols.numel() == 0 or int(torch.count_nonzero(segmap)) != symbols.numel():
        return None
    if not bool((segmap.gather(1, symbols[:, None]) == 1).all()):
        return None
    return SymbolMap(symbols, None, segmap.shape[1])


def _by_vector(segmap: Tensor) -> SymbolMap | str:
    bits = segmap.contiguous().view(_AS_INTEGERS[segmap.element_size()]).flatten(2)  # [N, L, P]
    pixels = bits.shape[0] * bits.shape[2]
    step = max(1, bits.shape[2] // _SAMPLED)
    sampled = _hash(bits[:, :, ::step])
    if len(torch.unique(sampled)) > max(64, _MOST_OF_SAMPLE * sampled.numel()):
        return "its label map is soft: nearly every pixel holds another channel vector"
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
    return SymbolMap(symbols.view(segmap.shape[0], *segmap.shape[2:]), vectors, len(keys))


def _hash(bits: Tensor) -> Tensor:
    """A number for the channel vector of each pixel: integers [N, L, P] -> int64 [N, P]."""
    generator = torch.Generator().manual_seed(0x5BADE)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator) * 2 + 1
    total = torch.zeros((bits.shape[0], bits.shape[2]), dtype=torch.int64, device=bits.device)
    for channel, factor in enumerate(factors.tolist()):  # wraps around; the order of the sum does not matter
        total += bits[:, channel].long() * factor
    return total
