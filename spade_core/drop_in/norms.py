"""Norms around the codebook: of the codebook itself, and of x in the same pass as the modulation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spade_core.codebook.modulate import channels_last, modulate, slices
from spade_core.codebook.on_cuda import library_for
from spade_core.drop_in.plan import MapLevel

_DTYPES = (torch.float32, torch.float64)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


def instance_norm(values: Tensor, level: MapLevel, epsilon: float) -> Tensor:
    """Instance norm of a map [N, C, *size] that is given by its values at each entry [U5, C].

    An entry counts as often as its image's pixels name it. Changes `values` in place where no gradient is wanted.
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    shares = level.shares.to(wide.dtype)
    if torch.is_grad_enabled():
        wide = torch.cat([_normed(wide[image], shares[image], epsilon) for image in level.images])
    else:
        for image in level.images:
            _norm_in_place(wide[image], shares[image], epsilon)
    return wide.to(values.dtype)


def _normed(values: Tensor, share: Tensor, epsilon: float) -> Tensor:
    centred = values - share @ values
    return centred * torch.rsqrt(share @ centred.square() + epsilon)


def _norm_in_place(values: Tensor, share: Tensor, epsilon: float) -> None:
    """`_normed`, each slice of entries in the cache."""
    mean, variance = share @ values, values.new_zeros(values.shape[1])
    for part in slices(values):
        variance += share[part] @ values[part].sub_(mean).square()
    values.mul_(torch.rsqrt(variance + epsilon))


# ---- The norm of x and the modulation ----


def modulate_normed(norm: nn.Module, x: Tensor, entries: Tensor, level: MapLevel) -> Tensor:
    """a[index] * norm(x) + b[index] of a map [N, C, *spatial], in one pass where that is possible."""
    if (affine := norm_as_affine(norm, x)) is not None:
        return modulate_affine(x, entries, level, affine)
    inside = library_for(x) is not None and _on_kernels(norm)
    x = x if inside else norm(x)
    return modulate(x, entries, level.tensors.index, norm if inside else None, level.tensors.order)


def _on_kernels(norm: nn.Module) -> bool:
    """Whether the CUDA kernels compute a norm with the modulation, and its running statistics."""
    return (
        type(norm) in (nn.BatchNorm2d, nn.InstanceNorm2d)
        and getattr(norm, "weight", None) is None
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )


@dataclass(frozen=True, eq=False)
class Affine:
    """What a norm does to a map: x * scale + shift, each [N, C]."""

    scale: Tensor
    shift: Tensor


def norm_as_affine(norm: nn.Module, x: Tensor) -> Affine | None:
    """A norm of x [N, C, *spatial] as an affine map of each channel.

    None where the norm must be called itself: where a gradient is wanted, with hooks, under autocast, in half precision
    and off the CPU. Statistics of a channels-last map are read in order, while PyTorch's instance norm copies such a
    map.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype not in _DTYPES or torch.is_autocast_enabled("cpu"):
        return None
    if norm._forward_hooks or norm._forward_pre_hooks or x[0, 0].numel() < 2:
        return None
    statistics = _statistics(norm, x)
    if statistics is None:
        return None
    mean, variance, epsilon = statistics
    scale = torch.rsqrt(variance + epsilon)
    weight, bias = norm.weight, norm.bias
    if isinstance(weight, Tensor):
        scale = scale * weight.to(scale.dtype)
    shift = -mean * scale
    if isinstance(bias, Tensor):
        shift = shift + bias.to(scale.dtype)
    return Affine(scale, shift)


def _statistics(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, float] | None:
    """The mean and variance [N, C] that a norm uses, and its epsilon; None for other norms."""
    if type(norm) in _INSTANCE_NORMS:
        assert isinstance(norm, _INSTANCE_NORMS)
        if not norm.track_running_stats:
            return *_by_channel(x), norm.eps
    elif type(norm) in _BATCH_NORMS:
        assert isinstance(norm, _BATCH_NORMS)
        mean, variance = norm.running_mean, norm.running_var
        if not norm.training and mean is not None and variance is not None:
            return mean.to(x.dtype).expand(len(x), -1), variance.to(x.dtype).expand(len(x), -1), norm.eps
    elif type(norm) is nn.GroupNorm:
        means, variances = (values.view(len(x), norm.num_groups, -1) for values in _by_channel(x))
        mean = means.mean(2, keepdim=True)
        # The variance of a group: within its channels, and between them.
        variance = variances.mean(2, keepdim=True) + (means - mean).square().mean(2, keepdim=True)
        wide = means.shape
        return mean.expand(wide).flatten(1), variance.expand(wide).flatten(1), norm.eps
    return None


def _by_channel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel [N, C] of a map [N, C, *spatial]."""
    images = [torch.batch_norm_update_stats(image[None], None, None, 0.0) for image in _flat(x)]
    return torch.stack([mean for mean, _ in images]), torch.stack([variance for _, variance in images])


def modulate_affine(x: Tensor, entries: Tensor, level: MapLevel, norm: Affine) -> Tensor:
    """a[index] * (x * scale + shift) + b[index] (SPADE paper, equation 1), without gradients.

    x [N, C, *spatial] and entries [U5, 2C], a before b -> [N, C, *spatial], channels last. Each slice of pixels stays
    in the cache from the norm to the result.
    """
    out = torch.empty(x.shape, dtype=x.dtype, memory_format=channels_last(x))
    for image, index in enumerate(level.tensors.index.flatten(1)):
        rows, written = _rows(x[image]), _rows(out[image])
        scale, shift = norm.scale[image], norm.shift[image]
        for part in slices(rows):
            a, b = entries.index_select(0, index[part]).chunk(2, dim=1)  # [.., C] each
            torch.addcmul(b, a, torch.addcmul(shift, rows[part], scale), out=written[part])
    return out


def _rows(image: Tensor) -> Tensor:
    """[C, *spatial] -> [pixels, C]; a view of a channels-last map, else a copy by a transposed matrix."""
    return image.flatten(1).t().contiguous()


def _flat(x: Tensor) -> Tensor:
    """[N, C, d, h, w] -> [N, C, d*h, w], and maps as they are; channels last where x is."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])
