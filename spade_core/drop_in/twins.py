"""Copies of modules: one that shares everything but a few submodules, and one that is tried on random numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spade_core.drop_in.in_place import bare

Run = Callable[[nn.Module, tuple[Any, ...]], Tensor]
"""Computes what a module's forward computes for some arguments."""

_SIDE = 8  # of the maps that a copy is tried on
_ERROR = 1e-9  # of the largest value, in float64


def twin_of(module: nn.Module, replaced: Mapping[str, nn.Module], prefix: str = "") -> nn.Module:
    """A module that shares all parameters and code of another one, with other submodules under some names.

    Its forward is that of the class: what `accelerate` put into the module is left out.
    """
    twin = bare(copy.copy(module))
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        path = prefix + name
        if path in replaced:
            children[name] = replaced[path]
        elif child is not None and any(other.startswith(f"{path}.") for other in replaced):
            children[name] = twin_of(child, replaced, f"{path}.")
        else:
            children[name] = child
    twin.__dict__["_modules"] = children
    return twin


def proved(module: nn.Module, run: Run, args: tuple[Any, ...], symbols: Tensor) -> bool:
    """Whether `run` gives the results and the gradients of the module's own forward.

    Copies of the module get random parameters in float64. The arguments, x and the segmap first, keep the values that
    maps and styles have, at a few pixels of two images; x is random. The pixels are shuffled and chosen by the segmap's
    `symbols` [N, *spatial], as many symbols as fit, so that all kinds of neighbours meet.
    """
    small = _small(args, symbols)
    # A map that wants no gradient may be picked from; every other number is to get the gradient of all its pixels.
    wanted = [
        n for n, each in enumerate(args)
        if n != 1 and isinstance(each, Tensor) and each.is_floating_point()
        and (n == 0 or each.requires_grad or not is_map(each, args[1]))
    ]  # fmt: skip
    own, ours = (_results(module, one, small, wanted) for one in (_own_forward, run))
    if own is None or ours is None or len(own) != len(ours):
        return False
    # A gradient may be 0 but for rounding, so all are judged by the largest.
    largest = max(float(gradient.abs().max()) for gradient in own[1:])
    scales = [float(own[0].abs().max()), *[largest] * (len(own) - 1)]
    return all(
        one.shape == other.shape and bool((one - other).abs().max() <= _ERROR * scale)
        for one, other, scale in zip(own, ours, scales, strict=True)
    )


def _own_forward(module: nn.Module, args: tuple[Any, ...]) -> Tensor:
    out: Tensor = twin_of(module, {}).forward(*args)
    return out


@torch.inference_mode(False)
@torch.enable_grad()
def _results(module: nn.Module, run: Run, args: tuple[Any, ...], wanted: Sequence[int]) -> list[Tensor] | None:
    """The result, and the gradients at the `wanted` arguments and at the parameters. x, the first one, is random."""
    probe = bare(copy.deepcopy(module).cpu().double())
    generator = torch.Generator().manual_seed(1)
    for parameter in probe.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        parameter.requires_grad_()
    given = [argument.clone() if isinstance(argument, Tensor) else argument for argument in args]
    given[0] = torch.randn(given[0].shape, generator=generator, dtype=torch.float64)
    inputs = [given[n].requires_grad_() for n in wanted]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            out = run(probe, tuple(given))
        if not isinstance(out, Tensor) or out.shape != given[0].shape:
            return None
        grads = torch.autograd.grad(out.square().sum(), [*inputs, *probe.parameters()], allow_unused=True)
    except Exception:  # noqa: BLE001 - whatever another module's code raises on these arguments, it is not proved
        return None
    return [out.detach(), *(torch.zeros(1).double() if grad is None else grad for grad in grads)]


def is_map(argument: Any, segmap: Tensor) -> bool:
    """Whether an argument is a map of the segmap's size: [N, any, *spatial], or [N, *spatial]."""
    axes = segmap.dim() - 2
    return (
        isinstance(argument, Tensor)
        and argument.dim() in (axes + 1, axes + 2)
        and len(argument) == len(segmap)
        and argument.shape[-axes:] == segmap.shape[2:]
    )


def _small(args: tuple[Any, ...], symbols: Tensor) -> tuple[Any, ...]:
    """Arguments for two images, their maps of a few pixels; in float64, on the CPU. x keeps its share of the segmap."""
    x, segmap = args[:2]
    sides = [min(side, _SIDE) for side in segmap.shape[2:]]
    places = _places(symbols[:2].flatten(1).cpu(), math.prod(sides))
    small = []
    for number, each in enumerate(args):
        if not isinstance(each, Tensor):
            small.append(each)
            continue
        each = each.detach()[: 2 if each.dim() > 0 and len(each) == len(segmap) else None].cpu()
        if number == 0:
            for axis, side in enumerate(sides, start=2):
                each = each.narrow(axis, 0, max(1, x.shape[axis] * side // segmap.shape[axis]))
        elif is_map(args[number], segmap):
            rows = each.flatten(2 - segmap.dim())  # [2, pixels] or [2, any, pixels]
            chosen = places if rows.dim() == 2 else places[:, None].expand(-1, rows.shape[1], -1)
            each = rows.gather(-1, chosen).view(*chosen.shape[:-1], *sides)
        small.append(each.double() if each.is_floating_point() else each)
    return tuple(small)


def _places(symbols: Tensor, count: int) -> Tensor:
    """Pixels [N, count] of images of symbols [N, pixels], shuffled; as many different symbols as fit are among them."""
    generator = torch.Generator().manual_seed(2)
    chosen = []
    for image in symbols:
        order = torch.randperm(len(image), generator=generator)
        values, rank = image[order].sort(stable=True)
        first = torch.ones(len(image), dtype=torch.bool)
        first[1:] = values[1:] != values[:-1]
        order = torch.cat([order[rank[first]], order[rank[~first]]])[:count]
        chosen.append(order[torch.randperm(count, generator=generator)])
    return torch.stack(chosen)
