"""SPADE layers in networks that other people wrote: found by their structure, proved by what they compute."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.drop_in.structure import CONVS, Parts, parts_of

Activation = Callable[[Tensor], Tensor]

# What a forward may apply to the hidden map by a function of its own.
_FUNCTIONS: tuple[Activation, ...] = (
    lambda x: x, F.relu, lambda x: F.leaky_relu(x, 0.2), F.leaky_relu, F.silu,
)  # fmt: skip
_PROBE_SIZE = 6
# Sizes of the segmap along an axis for x of `_PROBE_SIZE`: a multiple, and others that tell NEAREST from other rules.
_RESIZED = 12, 15, 4
_PROBE_ERROR = 1e-9  # of the largest output, in float64


@dataclass(frozen=True)
class SpadeLayer:
    """How a module computes norm(x) * (1 + gamma(segmap)) + beta(segmap): SPADE paper, equation 1.

    The parts are given by their names in the module, so that they are also the parts of a copy of the module.

    Attributes:
        function: which of `_FUNCTIONS` lies behind the hidden modules.
        one_plus: whether gamma has 1 added.
        resizes: whether the module resizes a segmap of another size by NEAREST. Other modules are given a segmap of
            the size of x, or resize it by another rule.
        in_training: whether the formula holds in training too. Some modules add noise there.
    """

    parts: Parts
    function: int = 0
    one_plus: bool = True
    resizes: bool = True
    in_training: bool = True

    def activation(self, module: nn.Module) -> Activation:
        """What lies between the hidden conv and the convs behind it; acts on each value alone."""
        parts = [module.get_submodule(name) for name in self.parts.hidden]
        function = _FUNCTIONS[self.function]

        def apply(x: Tensor) -> Tensor:
            for part in parts:
                x = part(x)
            return function(x)

        return apply


def find_layers(model: nn.Module, known: AbstractSet[nn.Module] = frozenset()) -> dict[str, SpadeLayer]:
    """The SPADE layers of a network by their names in it, without the modules that are `known` to be some."""
    found: dict[str, SpadeLayer] = {}
    for name, module in model.named_modules():
        if module not in known and (layer := describe(module)) is not None:
            found[name] = layer
    return found


def describe(module: nn.Module) -> SpadeLayer | None:
    """How a module computes SPADE; None if it does not. Tries a copy of it on random numbers in float64."""
    parts = parts_of(module)
    if parts is None:
        return None
    for layer in _variants(parts):
        if _computes(module, layer):
            resizes = all(_computes(module, layer, side) for side in _RESIZED)
            return replace(layer, resizes=resizes, in_training=_computes(module, layer, training=True))
    return None


def _variants(parts: Parts) -> Iterator[SpadeLayer]:
    swapped = replace(parts, gamma=parts.beta, beta=parts.gamma, gamma_norm=parts.beta_norm, beta_norm=parts.gamma_norm)
    functions = range(1 if parts.hidden else len(_FUNCTIONS))
    for either, one_plus, function in itertools.product((parts, swapped), (True, False), functions):
        yield SpadeLayer(either, function, one_plus)


@torch.no_grad()
def _computes(module: nn.Module, layer: SpadeLayer, side: int = _PROBE_SIZE, training: bool = False) -> bool:
    """Whether a copy of the module with random parameters and buffers equals the layer's formula, on a segmap of a
    size.
    """
    generator = torch.Generator().manual_seed(1)
    probe = _probe(module, generator).train(training)
    probe.get_submodule(layer.parts.norm).eval()  # its statistics are the norm's own matter
    other = copy.deepcopy(probe)  # a parametrized weight may move on each time it is read
    shared, gamma = probe.get_submodule(layer.parts.shared), probe.get_submodule(layer.parts.gamma)
    assert isinstance(shared, CONVS)
    assert isinstance(gamma, CONVS)
    space = [_PROBE_SIZE] * (shared.weight.dim() - 2)
    x = torch.randn((2, gamma.out_channels, *space), generator=generator, dtype=torch.float64)
    segmap = torch.randn((2, shared.in_channels, *[side] * len(space)), generator=generator, dtype=torch.float64)
    try:
        expected = probe(x.clone(), segmap.clone())
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False  # a module with another signature is no SPADE layer
    if not isinstance(expected, Tensor) or expected.shape != x.shape:
        return False
    error = (dense(other, layer, x, segmap) - expected).abs().max()
    return bool(error <= _PROBE_ERROR * expected.abs().max())


def _probe(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy of a module in float64, without hooks, with random parameters and positive random buffers."""
    probe = copy.deepcopy(module).cpu().double()
    for part in probe.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.clear()
    for parameter in probe.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    for buffer in probe.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5)
    return probe


def dense(module: nn.Module, layer: SpadeLayer, x: Tensor, segmap: Tensor) -> Tensor:
    """The layer's formula written out, on any segmap: x [N, C, *spatial], segmap [N, L, *any] -> [N, C, *spatial]."""
    part, names = module.get_submodule, layer.parts
    segmap = F.interpolate(segmap, size=x.shape[2:], mode="nearest")
    hidden = layer.activation(module)(part(names.shared)(segmap))
    gamma, beta = part(names.gamma)(hidden), part(names.beta)(hidden)
    gamma = gamma if names.gamma_norm is None else part(names.gamma_norm)(gamma)
    beta = beta if names.beta_norm is None else part(names.beta_norm)(beta)
    out: Tensor = part(names.norm)(x) * (1 + gamma if layer.one_plus else gamma) + beta
    return out
