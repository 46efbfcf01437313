"""The forward of a SPADE layer by codebook, in place of the layer's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import codebook
from spade_core.codebook.fold import Folded
from spade_core.drop_in.fused_dense import fused_dense
from spade_core.drop_in.in_place import ForwardInPlace, has_hooks, watched
from spade_core.drop_in.layers import SpadeLayer
from spade_core.drop_in.maps import KnownMap, Maps
from spade_core.drop_in.norms import instance_norm, modulate_normed
from spade_core.drop_in.parameters import ParameterState, by_tap, table_of, weight_and_bias
from spade_core.drop_in.plan import MapLevel
from spade_core.drop_in.recognise import SymbolMap
from spade_core.drop_in.structure import CONVS, Conv

# A codebook with a hidden row for more than this share of the pixels costs more than the layer's own convs, on maps
# that are large enough to matter.
_MOST, _LARGE = 0.5, 4096


class CodebookForward(ForwardInPlace):
    """Called in place of a layer's `forward`. Same arguments, same result to rounding, same parameters.

    Args:
        module, layer: the layer's module and its parts.
        maps: the segmaps seen by all layers of the network.
    """

    def __init__(self, module: nn.Module, layer: SpadeLayer, maps: Maps) -> None:
        super().__init__(module, maps)
        self.layer = layer
        self.names = tuple(inspect.signature(self.original).parameters)[:2]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks at values, so torch.compile leaves it as it is
    def __call__(self, *args: Any, **named: Any) -> Tensor:
        given = None if watched() else two_maps(self.names, args, named)
        if given is None or not self._may_run(*given):
            return self.original(*args, **named)
        x, segmap = given
        known = self.maps.look_up(segmap, self)
        if isinstance(known.found, str):
            return self._dense(x, segmap, known.found)
        size = tuple(x.shape[2:])
        level = known.level(size, self._conv(self.layer.parts.shared).kernel_size[0])
        pixels, kept = level.tensors.index.numel(), known.keep and not torch.is_grad_enabled()
        if not kept and pixels >= _LARGE and len(level.tensors.patches3) > _MOST * pixels:
            return self._dense(x, segmap, "its label map holds another patch at nearly every pixel")
        entries = self._entries(known, known.found, level, size)
        return modulate_normed(self.module.get_submodule(self.layer.parts.norm), x, entries, level)

    def _may_run(self, x: Tensor, segmap: Tensor) -> bool:
        shared, layer = self._conv(self.layer.parts.shared), self.layer
        wide = next((each.dtype for each in shared.parameters()), x.dtype)
        return (
            x.dim() == len(shared.kernel_size) + 2
            and x.numel() > 0
            and segmap.numel() > 0
            and (layer.resizes or x.shape[2:] == segmap.shape[2:])
            and (layer.in_training or not self.module.training)
            # Parameters wider than x make the result wider than x, except under autocast.
            and (torch.promote_types(wide, x.dtype) == x.dtype or torch.is_autocast_enabled(x.device.type))
            and not has_hooks(self.module, layer.parts.norm)
        )

    def _dense(self, x: Tensor, segmap: Tensor, reason: str) -> Tensor:
        out = fused_dense(self.module, self.layer, x, segmap)
        if out is None:
            self.maps.tell(f"the SPADE layers run as they are: {reason}")
            return self.original(x, segmap)
        self.maps.tell(f"the SPADE layers run their own convs, and only the modulation is fused: {reason}")
        return out

    def _conv(self, name: str) -> Conv:
        conv = self.module.get_submodule(name)
        assert isinstance(conv, CONVS)
        return conv

    def _entries(self, known: KnownMap, found: SymbolMap, level: MapLevel, size: tuple[int, ...]) -> Tensor:
        """The layer's codebook for a map, kept while the map is pinned and no gradient is wanted."""
        if not known.keep or torch.is_grad_enabled() or getattr(self.module, "_is_replica", False):
            return self._draw(found, level)
        device = level.tensors.index.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        parts = self.layer.parts
        names = parts.shared, *parts.hidden, parts.gamma, parts.beta
        state = ParameterState.of([self.module.get_submodule(name) for name in names], dtype)
        kept = known.codebooks.get((id(self), size))
        if kept is not None and kept[0].equals(state):
            return kept[1]
        entries = self._draw(found, level)
        known.codebooks[id(self), size] = state, entries
        return entries

    def _draw(self, found: SymbolMap, level: MapLevel) -> Tensor:
        """The entry of every distinct patch [U5, 2C], a before b."""
        parts = self.layer.parts
        shared, gamma, beta = (self._conv(name) for name in (parts.shared, parts.gamma, parts.beta))
        (weight, shared_bias), (g_weight, g_bias), (b_weight, b_bias) = map(weight_and_bias, (shared, gamma, beta))
        if self.layer.one_plus and parts.gamma_norm is None:
            g_bias = 1 + g_bias
        folded = Folded(
            table=table_of(weight, found),
            shared_bias=shared_bias,
            # A view of [2C, k*k * hidden]: products read it as it is.
            weight=torch.cat([by_tap(g_weight).flatten(1), by_tap(b_weight).flatten(1)]).t(),
            bias=torch.cat([g_bias, b_bias]),
            norm=None,
        )
        entries = codebook(folded, level.tensors, self.layer.activation(self.module))
        norms = parts.gamma_norm, parts.beta_norm
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


def two_maps(names: Sequence[str], args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """x [N, C, *spatial] and the segmap [N, L, *spatial] of a call, and nothing else; None for other calls."""
    given = dict(zip(names, args, strict=False)) | dict(named)
    if len(args) > len(names) or given.keys() != set(names):
        return None
    x, segmap = (given[name] for name in names)
    if not isinstance(x, Tensor) or not isinstance(segmap, Tensor):
        return None
    return (x, segmap) if x.dim() == segmap.dim() and len(x) == len(segmap) else None
