"""SPADE layers in networks that other people wrote: found by their structure, proved by what they compute."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Conv = nn.Conv2d | nn.Conv3d
Activation = Callable[[Tensor], Tensor]

_CONVS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.PReLU)
# What a forward may apply to the hidden map by a function of its own.
_FUNCTIONS: tuple[Activation, ...] = (
    lambda x: x, F.relu, lambda x: F.leaky_relu(x, 0.2), F.leaky_relu, F.silu,
)  # fmt: skip
_PROBE_SIZE = 6
_PROBE_ERROR = 1e-9  # of the largest output, in float64


@dataclass(frozen=True)
class SpadeLayer:
    """The parts of a module that computes norm(x) * (1 + gamma(segmap)) + beta(segmap): SPADE paper, equation 1.

    The parts are given by their names in the module, so that they are also the parts of a copy of the module.

    Attributes:
        norm: the norm of x.
        shared: the conv that reads the segmap. `hidden`: modules behind it, applied in this order, then `function`.
        gamma, beta: the convs that read the hidden map.
        gamma_norm, beta_norm: instance norms behind them, or None.
        one_plus: whether gamma has 1 added.
    """

    norm: str
    shared: str
    hidden: tuple[str, ...]
    gamma: str
    beta: str
    gamma_norm: str | None
    beta_norm: str | None
    function: int = 0
    one_plus: bool = True

    def activation(self, module: nn.Module) -> Activation:
        """What lies between the hidden conv and the convs behind it; acts on each value alone."""
        parts = [module.get_submodule(name) for name in self.hidden]
        function = _FUNCTIONS[self.function]

        def apply(x: Tensor) -> Tensor:
            for part in parts:
                x = part(x)
            return function(x)

        return apply


def find_layers(model: nn.Module) -> dict[str, SpadeLayer]:
    """The SPADE layers of a network by their names in it."""
    found: dict[str, SpadeLayer] = {}
    for name, module in model.named_modules():
        if (layer := describe(module)) is not None:
            found[name] = layer
    return found


def describe(module: nn.Module) -> SpadeLayer | None:
    """How a module computes SPADE; None if it does not. Tries a copy of it on random numbers in float64."""
    structure = _structure(module)
    if structure is None:
        return None
    return next((layer for layer in _variants(structure) if _computes(module, layer)), None)


def _structure(module: nn.Module) -> SpadeLayer | None:
    """A norm, one conv on the segmap and two convs behind it, each with modules of no size of their own behind it."""
    norm, units = None, []
    for name, child in module.named_children():
        if isinstance(child, _NORMS):
            if norm is not None:
                return None
            norm = name
        elif (unit := _unit(name, child)) is not None:
            units.append(unit)
        elif any(True for _ in child.parameters()):
            return None
    if norm is None or len(units) != 3:
        return None
    convs = [module.get_submodule(unit[0]) for unit in units]
    for shared, one, two in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        layer = _joined(
            norm, units[shared], *sorted((units[one], units[two]), key=lambda unit: "beta" in unit[0].lower())
        )
        if layer is not None and _fits(convs[shared], convs[one], convs[two]):
            return layer
    return None


Unit = tuple[str, tuple[str, ...], str | None]
"""A conv, the activations behind it, and the instance norm behind it, by name."""


def _unit(name: str, child: nn.Module) -> Unit | None:
    conv: str | None = None
    norm: str | None = None
    hidden: list[str] = []
    for inner, part in child.named_modules(prefix=name):
        if any(True for _ in part.children()):
            continue
        if isinstance(part, _CONVS):
            if conv is not None or norm is not None or hidden:
                return None
            conv = inner
        elif isinstance(part, _INSTANCE_NORMS) and not part.affine and not part.track_running_stats:
            norm = inner if norm is None and not hidden else ""
        elif isinstance(part, _POINTWISE):
            hidden.append(inner)
        elif not isinstance(part, (nn.Identity, nn.Dropout)) or (isinstance(part, nn.Dropout) and part.p > 0):
            return None
    return None if conv is None or norm == "" else (conv, tuple(hidden), norm)


def _joined(norm: str, shared: Unit, gamma: Unit, beta: Unit) -> SpadeLayer | None:
    if shared[2] is not None or gamma[1] or beta[1]:
        return None
    return SpadeLayer(norm, shared[0], shared[1], gamma[0], beta[0], gamma[2], beta[2])


def _fits(shared: nn.Module, gamma: nn.Module, beta: nn.Module) -> bool:
    assert isinstance(shared, _CONVS)
    assert isinstance(gamma, _CONVS)
    assert isinstance(beta, _CONVS)
    return (
        gamma.in_channels == beta.in_channels == shared.out_channels
        and gamma.out_channels == beta.out_channels
        and shared.kernel_size == gamma.kernel_size == beta.kernel_size
        and all(_plain(conv) for conv in (shared, gamma, beta))
    )


def _plain(conv: Conv) -> bool:
    """An odd cube as kernel, zeros around the map, and nothing that leaves the weight to a hook."""
    size = conv.kernel_size[0]
    return (
        size in (1, 3, 5)
        and set(conv.kernel_size) == {size}
        and set(conv.stride) == set(conv.dilation) == {1}
        and conv.groups == 1
        and conv.padding in (tuple(size // 2 for _ in conv.kernel_size), "same")
        and conv.padding_mode == "zeros"
        and not conv._forward_pre_hooks
        and not conv._forward_hooks
    )


def _variants(layer: SpadeLayer) -> Iterator[SpadeLayer]:
    swapped = replace(layer, gamma=layer.beta, beta=layer.gamma, gamma_norm=layer.beta_norm, beta_norm=layer.gamma_norm)
    functions = range(1 if layer.hidden else len(_FUNCTIONS))
    for parts, one_plus, function in itertools.product((layer, swapped), (True, False), functions):
        yield replace(parts, one_plus=one_plus, function=function)


@torch.no_grad()
def _computes(module: nn.Module, layer: SpadeLayer) -> bool:
    """Whether a copy of the module with random parameters equals the layer's formula, at one size and at two."""
    probe = copy.deepcopy(module).cpu().double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in probe.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    shared, gamma = probe.get_submodule(layer.shared), probe.get_submodule(layer.gamma)
    assert isinstance(shared, _CONVS)
    assert isinstance(gamma, _CONVS)
    space = [_PROBE_SIZE] * (shared.weight.dim() - 2)
    x = torch.randn((2, gamma.out_channels, *space), generator=generator, dtype=torch.float64)
    for size in ([2 * side for side in space], space):
        segmap = torch.randn((2, shared.in_channels, *size), generator=generator, dtype=torch.float64)
        try:
            expected = probe(x.clone(), segmap.clone())
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            return False  # a module with another signature is no SPADE layer
        if not isinstance(expected, Tensor) or expected.shape != x.shape:
            return False
        error = (dense(probe, layer, x, segmap) - expected).abs().max()
        if not bool(error <= _PROBE_ERROR * expected.abs().max()):
            return False
    return True


def dense(module: nn.Module, layer: SpadeLayer, x: Tensor, segmap: Tensor) -> Tensor:
    """The layer's formula written out, on any segmap: x [N, C, *spatial], segmap [N, L, *any] -> [N, C, *spatial]."""
    part = module.get_submodule
    segmap = F.interpolate(segmap, size=x.shape[2:], mode="nearest")
    hidden = layer.activation(module)(part(layer.shared)(segmap))
    gamma, beta = part(layer.gamma)(hidden), part(layer.beta)(hidden)
    gamma = gamma if layer.gamma_norm is None else part(layer.gamma_norm)(gamma)
    beta = beta if layer.beta_norm is None else part(layer.beta_norm)(beta)
    out: Tensor = part(layer.norm)(x) * (1 + gamma if layer.one_plus else gamma) + beta
    return out
