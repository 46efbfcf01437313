"""What a module is made of: the part of recognition that looks at names, kinds and shapes, and computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

Conv = nn.Conv2d | nn.Conv3d

CONVS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.PReLU)


@dataclass(frozen=True)
class Parts:
    """The parts of a module that may compute SPADE, by their names in the module.

    Attributes:
        norm: the norm of x.
        shared: the conv that reads the segmap. `hidden`: modules behind it, applied in this order.
        gamma, beta: the convs that read the hidden map.
        gamma_norm, beta_norm: instance norms behind them, or None.
    """

    norm: str
    shared: str
    hidden: tuple[str, ...]
    gamma: str
    beta: str
    gamma_norm: str | None
    beta_norm: str | None


def parts_of(module: nn.Module) -> Parts | None:
    """A norm, one conv on the segmap and two convs behind it, each with modules of no size of their own behind it."""
    norm, units = None, []
    for name, child in module.named_children():
        if isinstance(child, NORMS):
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
        parts = _joined(
            norm, units[shared], *sorted((units[one], units[two]), key=lambda unit: "beta" in unit[0].lower())
        )
        if parts is not None and _fits(convs[shared], convs[one], convs[two]):
            return parts
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
        if isinstance(part, CONVS):
            if conv is not None or norm is not None or hidden:
                return None
            conv = inner
        elif isinstance(part, INSTANCE_NORMS) and not part.affine and not part.track_running_stats:
            norm = inner if norm is None and not hidden else ""
        elif isinstance(part, POINTWISE):
            hidden.append(inner)
        elif not isinstance(part, (nn.Identity, nn.Dropout)) or (isinstance(part, nn.Dropout) and part.p > 0):
            return None
    return None if conv is None or norm == "" else (conv, tuple(hidden), norm)


def _joined(norm: str, shared: Unit, gamma: Unit, beta: Unit) -> Parts | None:
    if shared[2] is not None or gamma[1] or beta[1]:
        return None
    return Parts(norm, shared[0], shared[1], gamma[0], beta[0], gamma[2], beta[2])


def _fits(shared: nn.Module, gamma: nn.Module, beta: nn.Module) -> bool:
    assert isinstance(shared, CONVS)
    assert isinstance(gamma, CONVS)
    assert isinstance(beta, CONVS)
    return (
        gamma.in_channels == beta.in_channels == shared.out_channels
        and gamma.out_channels == beta.out_channels
        and shared.kernel_size == gamma.kernel_size == beta.kernel_size
        and all(plain_conv(conv) for conv in (shared, gamma, beta))
    )


def plain_conv(conv: Conv) -> bool:
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
