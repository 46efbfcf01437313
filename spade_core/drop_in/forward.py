"""The forward of a SPADE layer by codebook, in place of the layer's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import LevelTensors, codebook
from spade_core.codebook.fold import Folded
from spade_core.codebook.modulate import modulate
from spade_core.drop_in.layers import _CONVS, Conv, SpadeLayer
from spade_core.drop_in.maps import KnownMap, Maps
from spade_core.drop_in.recognise import SymbolMap


class CodebookForward:
    """Called in place of a layer's `forward`. Same arguments, same result to rounding, same parameters.

    Args:
        module, layer: the layer's module and its parts.
        original: the module's own forward, for segmaps without symbols.
        maps: the segmaps seen by all layers of the network.
    """

    def __init__(self, module: nn.Module, layer: SpadeLayer, original: Callable[..., Tensor], maps: Maps) -> None:
        self.module, self.layer, self.original, self.maps = module, layer, original, maps

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks at values, so torch.compile leaves it as it is
    def __call__(self, x: Tensor, segmap: Tensor, *others: Any, **named: Any) -> Tensor:
        if others or named:
            return self.original(x, segmap, *others, **named)
        known = self.maps.look_up(segmap)
        if isinstance(known.found, str):
            self.maps.tell(known.found)
            return self.original(x, segmap)
        level = known.level(tuple(x.shape[2:]), self._conv(self.layer.shared).kernel_size[0])
        norm = self.module.get_submodule(self.layer.norm)
        entries = self._entries(known, known.found, level, tuple(x.shape[2:]))
        x = norm(x)
        flat = x.reshape(*x.shape[:2], -1, x.shape[-1])  # [N, C, d*h, w] for volumes
        out = modulate(flat, entries, level.index, None, level.order)
        return out.reshape(x.shape)

    def _conv(self, name: str) -> Conv:
        conv = self.module.get_submodule(name)
        assert isinstance(conv, _CONVS)
        return conv

    def _entries(self, known: KnownMap, found: SymbolMap, level: LevelTensors, size: tuple[int, ...]) -> Tensor:
        """The layer's codebook for a map, kept while the map is pinned and no gradient is wanted."""
        if not known.keep or torch.is_grad_enabled():
            return self._draw(found, level)
        device = level.index.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        state = tuple((parameter.data_ptr(), parameter._version) for parameter in self.module.parameters()), dtype
        kept = known.codebooks.get((id(self), size))
        if kept is not None and kept[0] == state:
            return kept[1]
        entries = self._draw(found, level)
        known.codebooks[id(self), size] = state, entries
        return entries

    def _draw(self, found: SymbolMap, level: LevelTensors) -> Tensor:
        """The entry of every distinct patch [U5, 2C], a before b."""
        shared, gamma, beta = (self._conv(name) for name in (self.layer.shared, self.layer.gamma, self.layer.beta))
        weight = torch.cat([_by_tap(gamma.weight).flatten(1), _by_tap(beta.weight).flatten(1)]).t()
        folded = Folded(
            table=_table(shared.weight, found),
            shared_bias=_bias(shared),
            weight=weight if weight.requires_grad else weight.contiguous(),
            bias=torch.cat([_bias(gamma), _bias(beta)]),
            norm=None,
        )
        entries = codebook(folded, level, self.layer.activation(self.module))
        a, b = entries.chunk(2, dim=1)
        if self.layer.gamma_norm is not None or self.layer.beta_norm is not None:
            a, b = self._normed(a, self.layer.gamma_norm, level), self._normed(b, self.layer.beta_norm, level)
        return torch.cat([1 + a if self.layer.one_plus else a, b], dim=1)

    def _normed(self, values: Tensor, name: str | None, level: LevelTensors) -> Tensor:
        """Instance norm of a map that is given by its values at each entry [U5, C] and the map's index.

        Every entry belongs to one image, and counts as often as the image's pixels name it.
        """
        if name is None:
            return values
        norm = self.module.get_submodule(name)
        assert isinstance(norm, (nn.InstanceNorm2d, nn.InstanceNorm3d))
        images = len(level.index)
        flat = level.index.flatten(1).long()  # [N, P]
        counts = torch.bincount(flat.flatten(), minlength=len(values))
        owner = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        owner[flat.flatten()] = torch.arange(images, device=values.device).repeat_interleave(flat.shape[1])
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        share = (counts.to(wide.dtype) / flat.shape[1])[:, None]  # [U5, 1]
        nothing = wide.new_zeros((images, wide.shape[1]))
        mean = nothing.index_add(0, owner, wide * share)  # [N, C]
        centred = wide - mean.index_select(0, owner)
        variance = nothing.index_add(0, owner, centred.square() * share)
        return (centred * torch.rsqrt(variance + norm.eps).index_select(0, owner)).to(values.dtype)


def _by_tap(weight: Tensor) -> Tensor:
    """Conv weights [out, in, k, .., k] -> [out, taps, in]."""
    return weight.flatten(2).transpose(1, 2)


def _bias(conv: Conv) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _table(weight: Tensor, found: SymbolMap) -> Tensor:
    """What each symbol adds to the hidden map at each tap: [taps * (S + 1), hidden]; the last row of a tap is zero."""
    rows = _by_tap(weight).permute(1, 2, 0)  # [taps, L, hidden]
    if found.vectors is not None:
        rows = found.vectors.to(rows.dtype) @ rows
    return F.pad(rows, (0, 0, 0, 1)).flatten(0, 1)
