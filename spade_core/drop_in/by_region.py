"""Layers that modulate by region with a rule of their own: tables of classes or instances, region styles.

CLADE and INADE look gamma and beta up in tables, SEAN mixes SPADE with convs on a map of region styles. None of them is
recognised by its formula. Their own code runs, on less: on a pixel of each region where it reads pixels alone, and with
convs by patch where it has convs. Each is tried on copies first, results and gradients, and left as it is if they
differ.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from spade_core.drop_in.conv_by_region import ConvByRegion
from spade_core.drop_in.in_place import ForwardInPlace, has_hooks, watched
from spade_core.drop_in.maps import KnownMap, Maps
from spade_core.drop_in.norms import modulate_normed
from spade_core.drop_in.recognise import MAX_SYMBOLS, SymbolMap
from spade_core.drop_in.structure import CONVS, NORMS, POINTWISE, Conv, plain_conv
from spade_core.drop_in.twins import is_map, proved, twin_of

_DTYPES = (torch.float32, torch.float64)
# A map of one symbol proves nothing about edges. A proof holds for maps of as many symbols, or of this many and more.
_SEVERAL = 4


def find_region_layers(model: nn.Module, spade: set[nn.Module]) -> dict[str, nn.Module]:
    """The layers by region of a network by their names, outside those of `spade`."""
    taken = set(spade)
    found: dict[str, nn.Module] = {}
    for name, module in reversed(list(model.named_modules())):  # the innermost module of a norm comes first
        inside = set(module.modules())
        if not inside & taken and _modulates_by_region(module):
            found[name] = module
            taken.add(module)
    return dict(reversed(found.items()))


def _modulates_by_region(module: nn.Module) -> bool:
    """Whether a module with more than one argument holds a norm of x, and tables or pairs of convs of its width."""
    norms = [part for part in module.modules() if isinstance(part, NORMS)]
    if len(norms) != 1 or norms[0] is module or "forward" in module.__dict__:
        return False
    width = norms[0].num_channels if isinstance(norms[0], nn.GroupNorm) else norms[0].num_features
    if len(inspect.signature(module.forward).parameters) < 2:
        return False
    convs: list[Conv] = []
    tables: list[Tensor] = [parameter for parameter in module._parameters.values() if parameter is not None]
    for part in module.modules():
        if isinstance(part, CONVS):
            convs.append(part)
        elif isinstance(part, nn.Embedding):
            tables.append(part.weight)
        elif not any(True for _ in part.children()) and not isinstance(part, (*NORMS, *POINTWISE, nn.Linear)):
            tables.extend(part.parameters())
    if convs:
        made = [conv.out_channels for conv in convs if plain_conv(conv)]
        return made.count(width) >= 2 or 2 * width in made
    return any(table.dim() >= 2 and {width, 2 * width} & set(table.shape) for table in tables)


class _ManyRegions(ValueError):
    """The maps of a call have no regions, or too many."""


class RegionForward(ForwardInPlace):
    """Called in place of the `forward` of a layer by region."""

    def __init__(self, module: nn.Module, maps: Maps) -> None:
        super().__init__(module, maps)
        self.convs = [name for name, part in module.named_modules() if isinstance(part, CONVS)]
        (self.norm,) = (name for name, part in module.named_modules() if isinstance(part, NORMS))
        self._proved: dict[object, bool] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks at values
    def __call__(self, *args: Any, **named: Any) -> Tensor:
        if watched() or named or not self._may_run(args):
            return self.original(*args, **named)
        x, segmap = args[:2]
        known = self.maps.look_up(segmap, self)
        if isinstance(known.found, str):
            self.maps.tell(f"the {type(self.module).__name__} layers run as they are: {known.found}")
            return self.original(*args)
        same_size, several = x.shape[2:] == segmap.shape[2:], min(known.found.count, _SEVERAL)
        kind = self.module.training, same_size, several, *(_kind(argument, segmap) for argument in args)
        if kind not in self._proved:
            self._proved[kind] = proved(self.module, self._run, args, known.found.symbols)
        if self._proved[kind]:
            with contextlib.suppress(_ManyRegions):
                return self._run(self.module, args)
            reason = "their maps have too many regions"
        else:
            reason = "their gamma and beta are not given by regions alone"
        self.maps.tell(f"the {type(self.module).__name__} layers run as they are: {reason}")
        return self.original(*args)

    def _may_run(self, args: tuple[Any, ...]) -> bool:
        if len(args) < 2 or not isinstance(args[0], Tensor) or not isinstance(args[1], Tensor):
            return False
        x, segmap = args[:2]
        return (
            x.dim() == segmap.dim() > 3
            and len(x) == len(segmap)
            and x.numel() > 0
            and segmap.numel() > 0
            and not has_hooks(self.module, self.norm)
            and x.dtype in _DTYPES
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _run(self, module: nn.Module, args: tuple[Any, ...]) -> Tensor:
        """What the forward of a module, the layer or a copy of it, gives. Raises _ManyRegions where it cannot."""
        known = self.maps.look_up(args[1])
        if isinstance(known.found, str) or known.symbol_map.count * known.images > MAX_SYMBOLS:
            raise _ManyRegions
        if not self.convs:
            return self._by_table(module, known, args)
        convs = {name: module.get_submodule(name) for name in self.convs}
        replaced: dict[str, nn.Module] = {
            name: ConvByRegion(conv, known)
            for name, conv in convs.items()
            if isinstance(conv, CONVS) and plain_conv(conv)
        }
        out: Tensor = twin_of(module, replaced).forward(*args)
        return out

    def _by_table(self, module: nn.Module, known: KnownMap, args: tuple[Any, ...]) -> Tensor:
        """Run the module on one pixel of each region, as an image of its own: at x = 0 it gives b, at 1 a + b."""
        x, segmap = args[:2]
        axes, size = x.dim() - 2, tuple(x.shape[2:])
        flat = {n: each for n, each in enumerate(args) if n > 1 and is_map(each, segmap)}
        others = tuple(self.maps.look_up(each, self, bare=each.dim() < x.dim()) for each in flat.values())
        if any(isinstance(other.found, str) for other in others) or (level := known.join(others, size)) is None:
            raise _ManyRegions
        index = level.tensors.index.flatten().long()
        pixel = torch.empty(len(level.tensors.patches5), dtype=torch.int64, device=x.device)
        pixel[index] = torch.arange(len(index), device=x.device)  # any pixel of the region
        image = pixel // x[0, 0].numel()

        def picked(map_: KnownMap) -> Tensor:
            assert isinstance(map_.found, SymbolMap)
            values = _values(map_.found, segmap)
            return values.index_select(0, map_.symbols(size).flatten()[pixel]).view(len(pixel), -1, *[1] * axes)

        def once(n: int, argument: Any) -> Any:
            if n == 1:
                return picked(known).to(segmap.dtype)
            if n in flat:
                values = picked(others[list(flat).index(n)]).to(argument.dtype)
                return values if argument.dim() == x.dim() else values[:, 0]
            if isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == len(x):
                return argument.index_select(0, image)
            return argument

        ones = x.new_ones((len(pixel), x.shape[1], *[1] * axes))
        given = [torch.cat([ones * 0, ones]), *(once(n, argument) for n, argument in enumerate(args) if n > 0)]
        given[1:] = [
            torch.cat([each, each]) if isinstance(each, Tensor) and len(each) == len(pixel) else each
            for each in given[1:]
        ]
        b, both = twin_of(module, {self.norm: nn.Identity()}).forward(*given).flatten(1).chunk(2)
        return modulate_normed(module.get_submodule(self.norm), x, torch.cat([both - b, b], 1), level)


def _values(found: SymbolMap, segmap: Tensor) -> Tensor:
    """The channel vector of each symbol [S, L]."""
    if found.vectors is not None:
        return found.vectors
    assert found.classes is not None
    return nn.functional.one_hot(found.classes, segmap.shape[1]).to(segmap.dtype)


def _kind(argument: Any, segmap: Tensor) -> object:
    """What a proof holds for: the sort of an argument, not its values."""
    if not isinstance(argument, Tensor):
        return type(argument), argument if isinstance(argument, (int, float, str, bool)) else None
    of_image = argument.dim() > 0 and len(argument) == len(segmap)
    return is_map(argument, segmap), of_image, argument.dim(), argument.is_floating_point(), argument.requires_grad
