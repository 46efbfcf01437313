"""`modulate` on the CUDA kernels, with the norm before it and the gradients of both.

`spade_core.codebook.modulate` is the twin on PyTorch's operators, and takes over where there are no kernels.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn

from kernels.cuda.autograd import spade_modulate_codebook
from kernels.cuda.host.library import DTYPES, CudaError, Library, installed
from kernels.cuda.modulate.modulate_codebook import Modulation, Order, sort_index
from kernels.cuda.norm.norm import Statistics, norm_statistics

_log = logging.getLogger(__name__)
_DTYPES = {getattr(torch, name) for name in DTYPES}


def library_for(x: Tensor) -> Library | None:
    """The CUDA kernels for a map, or None where PyTorch's operators take over: off CUDA, in float64, or without any."""
    return _installed() if x.is_cuda and x.dtype in _DTYPES else None


@functools.cache
def _installed() -> Library | None:
    """The installed library, or None if its kernels cannot run here; the log says why, once in a process."""
    try:
        library = installed()
        # A GPU that the library was not compiled for refuses this launch.
        norm_statistics(torch.zeros((1, 1, 1, 1), device=library.device), "batch", library=library)
        return library
    except CudaError as error:
        _log.warning("the modulation of SPADE's norms runs on PyTorch's operators: %s", error)
        return None


def modulate_on_kernels(
    x: Tensor, entries: Tensor, index: Tensor, norm: nn.Module | None, pixels: Tensor | None, library: Library
) -> Tensor:
    """a[index] * norm(x) + b[index], differentiable in x and entries; arguments as `modulate`.

    Args:
        pixels: int32 [N*h*w], the pixels in the order of their entries, or None: sorted here if a gradient needs it.

    Batch norm in training and instance norm run on the kernels. Every other norm, such as one that shares its
    statistics between processes, is called as it is, and its output modulated.
    """
    shape = x.shape
    if x.dim() == 5:  # the kernels know two dimensions
        x, norm = (x if norm is None else norm(x)).reshape(*shape[:2], -1, shape[-1]), None
    x, index = x.contiguous(memory_format=torch.channels_last), index.int().contiguous()
    statistics = None
    if type(norm) is nn.BatchNorm2d and norm.training:
        statistics = norm_statistics(x.detach(), "batch", epsilon=norm.eps, library=library)
        _track(norm, statistics, x.numel() // x.shape[1])
    elif type(norm) is nn.InstanceNorm2d and not norm.affine and not norm.track_running_stats:
        statistics = norm_statistics(x.detach(), "instance", epsilon=norm.eps, library=library)
    elif norm is not None:
        x = norm(x)
    entries = entries.to(x.dtype).contiguous()
    order = None
    if torch.is_grad_enabled() and entries.requires_grad:
        order = _order(index, pixels)
    how = Modulation(statistics, leaky=False)
    out = spade_modulate_codebook(x, entries, index, how, order=order, library=library)
    return out if len(shape) == 4 else out.reshape(shape)


def _order(index: Tensor, pixels: Tensor | None) -> Order:
    if pixels is None:
        return sort_index(index)
    places = pixels.long()
    return Order(index.flatten().index_select(0, places), places)


def _track(norm: nn.BatchNorm2d, statistics: Statistics, count: int) -> None:
    """Update the running statistics of a batch norm as PyTorch does; `count` values a channel went into the batch's."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    variance = (statistics.rstd.double().pow(-2) - norm.eps).clamp(min=0)
    unbiased = variance * (count / max(count - 1, 1))
    with torch.no_grad():
        norm.running_mean.lerp_(statistics.mean[0].to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(unbiased[0].to(norm.running_var.dtype), rate)
