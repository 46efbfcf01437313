"""The forward of a SPADE layer by codebook, in place of the layer's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import codebook
from spade_core.codebook.fold import Folded
from spade_core.codebook.modulate import modulate
from spade_core.drop_in.layers import _CONVS, Conv, SpadeLayer
from spade_core.drop_in.maps import KnownMap, Maps
from spade_core.drop_in.norms import instance_norm, modulate_affine, norm_as_affine
from spade_core.drop_in.plan import MapLevel
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
        if (affine := norm_as_affine(norm, x)) is not None:
            return modulate_affine(x, entries, level, affine)
        x = norm(x)
        flat = x.reshape(*x.shape[:2], -1, x.shape[-1])  # [N, C, d*h, w] for volumes
        return modulate(flat, entries, level.tensors.index, None, level.tensors.order).reshape(x.shape)

    def _conv(self, name: str) -> Conv:
        conv = self.module.get_submodule(name)
        assert isinstance(conv, _CONVS)
        return conv

    def _entries(self, known: KnownMap, found: SymbolMap, level: MapLevel, size: tuple[int, ...]) -> Tensor:
        """The layer's codebook for a map, kept while the map is pinned and no gradient is wanted."""
        if not known.keep or torch.is_grad_enabled():
            return self._draw(found, level)
        device = level.tensors.index.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        state = tuple((parameter.data_ptr(), parameter._version) for parameter in self.module.parameters()), dtype
        kept = known.codebooks.get((id(self), size))
        if kept is not None and kept[0] == state:
            return kept[1]
        entries = self._draw(found, level)
        known.codebooks[id(self), size] = state, entries
        return entries

    def _draw(self, found: SymbolMap, level: MapLevel) -> Tensor:
        """The entry of every distinct patch [U5, 2C], a before b."""
        shared, gamma, beta = (self._conv(name) for name in (self.layer.shared, self.layer.gamma, self.layer.beta))
        weight = torch.cat([_by_tap(gamma.weight).flatten(1), _by_tap(beta.weight).flatten(1)]).t()
        g_bias, b_bias = _bias(gamma), _bias(beta)
        if self.layer.one_plus and self.layer.gamma_norm is None:
            g_bias = 1 + g_bias
        folded = Folded(
            table=_table(shared.weight, found),
            shared_bias=_bias(shared),
            weight=weight,  # a view of [2C, k*k * hidden]: products read it as it is
            bias=torch.cat([g_bias, b_bias]),
            norm=None,
        )
        entries = codebook(folded, level.tensors, self.layer.activation(self.module))
        norms = self.layer.gamma_norm, self.layer.beta_norm
        if norms == (None, None):
            return entries
        if None not in norms and self._epsilon(norms[0]) == self._epsilon(norms[1]):
            entries = instance_norm(entries, level, self._epsilon(norms[0]))
        else:
            halves = zip(entries.chunk(2, dim=1), norms, strict=True)
            entries = torch.cat(
                [half if name is None else instance_norm(half, level, self._epsilon(name)) for half, name in halves], 1
            )
        if not self.layer.one_plus or norms[0] is None:
            return entries
        one = F.pad(entries.new_ones(gamma.out_channels), (0, beta.out_channels))
        return entries + one if torch.is_grad_enabled() else entries.add_(one)

    def _epsilon(self, name: str | None) -> float:
        assert name is not None
        norm = self.module.get_submodule(name)
        assert isinstance(norm, (nn.InstanceNorm2d, nn.InstanceNorm3d))
        return norm.eps


def _by_tap(weight: Tensor) -> Tensor:
    """Conv weights [out, in, k, .., k] -> [out, taps, in]."""
    return weight.flatten(2).transpose(1, 2)


def _bias(conv: Conv) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _table(weight: Tensor, found: SymbolMap) -> Tensor:
    """What each symbol adds to the hidden map at each tap: [taps * (S + 1), hidden]; the last row of a tap is zero."""
    if found.classes is not None:
        weight = weight.index_select(1, found.classes)
    rows = _by_tap(weight).permute(1, 2, 0)  # [taps, L, hidden]
    if found.vectors is not None:
        rows = found.vectors.to(rows.dtype) @ rows
    return F.pad(rows, (0, 0, 0, 1)).flatten(0, 1)
