"""Cases of the kernels that walk over a map (modulate, norm, image), beside PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cpu_kernels.timing import Case, Contender, exact, rounding, size_name, torch_contender, torch_dtype
from kernels.constants import EPSILON, SLOPE
from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import (
    Array,
    DType,
    Float32,
    empty_padded,
    from_padded,
    pad_channels,
    storage_dtype,
    to_entries,
    to_plain,
)
from kernels.ops.image import image
from kernels.ops.modulate import Modulation, modulate
from kernels.ops.norm import norm
from kernels.ops.plan import Level
from kernels.program import Entries, Pool, Program

# ---- Modulate ----


def modulate_case(isa: Isa, level: Level, channels: int, shift: int, pool: Pool, compiled: bool) -> Case:
    """Return the case of a[index] * x + b[index] and leaky ReLU, with x upsampled by 2 if shift is 1.

    compiled: add torch.compile's fused loop as a peer, which takes half a minute and a C++ compiler.
    """
    stored, dtype = isa_dtype(isa), input_dtype(isa)
    _, height, width = level.index.shape
    random, entries = np.random.default_rng(0), len(level.patches5)
    x = exact(random, 1, channels, height >> shift, width >> shift)
    a, b = exact(random, entries, channels), exact(random, entries, channels)
    out = empty_padded(1, channels, height, width, dtype)
    table = Entries.of([to_entries(a, b, stored)])
    program = Program([modulate(isa, to_plain(x, stored), Modulation(table, level.index, shift=shift), out)])
    values = height * width * channels
    return Case(
        "modulate", f"{channels} {size_name(level)}{' upsampled' if shift else ''}", dtype, isa, pool.threads,
        operations=3 * values,
        bytes=level.index.nbytes + (values + x.size + a.size + b.size) * storage_dtype(dtype).itemsize,
        bound="copy", limits=(rounding(dtype),),
        native=Contender(lambda: pool.run(program), lambda: [from_padded(out, channels)]),
        peers=_modulate_peers(dtype, x, a, b, level, shift, compiled),
    )  # fmt: skip


def _modulate_peers(
    dtype: DType, x: Float32, a: Float32, b: Float32, level: Level, shift: int, compiled: bool
) -> dict[str, Contender]:
    """Channels-last layout and gathered rows, PyTorch's fastest way to index."""
    kind, (_, height, width) = torch_dtype(dtype), level.index.shape
    given = torch.from_numpy(x).to(kind, memory_format=torch.channels_last)
    rows_a, rows_b = torch.from_numpy(a).to(kind), torch.from_numpy(b).to(kind)
    index = torch.from_numpy(level.index).flatten()

    def peer(function: Callable[..., Tensor]) -> Contender:
        return torch_contender(
            lambda: function(given, rows_a, rows_b, index, shift).view(1, height, width, -1).permute(0, 3, 1, 2)
        )

    return {"torch": peer(_modulate)} | ({"torch.compile": peer(_compiled())} if compiled else {})


def _modulate(x: Tensor, a: Tensor, b: Tensor, index: Tensor, shift: int) -> Tensor:
    large = F.interpolate(x, scale_factor=2.0, mode="nearest") if shift else x
    lanes = large.permute(0, 2, 3, 1).reshape(index.shape[0], -1)  # [H * W, C]
    return F.leaky_relu(torch.addcmul(b.index_select(0, index), a.index_select(0, index), lanes), SLOPE)


@cache
def _compiled() -> Callable[..., Tensor]:
    """The compiled function for all shapes; PyTorch compiles it once per dtype."""
    return torch.compile(_modulate, dynamic=True)


# ---- Norm ----


def norm_case(isa: Isa, channels: int, size: int, pool: Pool) -> Case:
    """Return the case of the mean and 1 / standard deviation of every channel."""
    stored, dtype = isa_dtype(isa), input_dtype(isa)
    x = exact(np.random.default_rng(0), 1, channels, size, size)
    mean, rstd = np.empty((2, *pad_channels(x[:, :, 0, 0]).shape), np.float32)
    program = Program([norm(isa, to_plain(x, stored), mean, rstd, epsilon=EPSILON)])

    given = torch.from_numpy(x).to(torch_dtype(dtype), memory_format=torch.channels_last)
    running_mean, running_variance = torch.zeros(channels), torch.ones(channels)

    def update_stats() -> tuple[Tensor, Tensor]:  # the statistics of a batch of one image are the image's
        average, variance = torch.batch_norm_update_stats(given, running_mean, running_variance, 0.0)
        return average[None], variance.add_(EPSILON).rsqrt_()[None]

    def var_mean() -> tuple[Tensor, Tensor]:
        variance, average = torch.var_mean(given, (2, 3), correction=0)
        return average, variance.add_(EPSILON).rsqrt_()

    return Case(
        "norm", f"{channels} {size}x{size}", dtype, isa, pool.threads,
        operations=3 * x.size, bytes=x.size * storage_dtype(dtype).itemsize, bound="copy",
        limits=(rounding(dtype), rounding(dtype)),
        native=Contender(lambda: pool.run(program), lambda: [mean[:, :channels], rstd[:, :channels]]),
        peers={
            "torch, batch statistics": torch_contender(update_stats), "torch, var_mean": torch_contender(var_mean)
        },
    )  # fmt: skip


# ---- Image ----


def image_case(isa: Isa, size: int, pool: Pool) -> Case:
    """Return the case of tanh and the grey levels."""
    stored, dtype = isa_dtype(isa), input_dtype(isa)
    x = exact(np.random.default_rng(0), 1, 3, size, size)
    values, pixels = np.empty(x.shape, np.float32), np.empty((1, size, size, 3), np.uint8)
    program = Program([image(isa, to_plain(x, stored), values, pixels)])
    given = torch.from_numpy(x).to(torch_dtype(dtype))

    def call() -> tuple[Tensor, Tensor]:
        out = given.float().tanh_()
        levels = out.add(1).mul_(127.5).clamp_(0, 255).to(torch.uint8)
        return out, levels.permute(0, 2, 3, 1).contiguous()

    def read() -> Sequence[Array]:
        return [values, pixels]

    accuracy = max(rounding(dtype), 1e-4)  # PyTorch's own tanh is off by 5e-5 in some processes
    return Case(
        "image", f"3 {size}x{size}", dtype, isa, pool.threads,
        operations=3 * x.size, bytes=x.size * storage_dtype(dtype).itemsize + values.nbytes + pixels.nbytes,
        bound="copy", limits=(accuracy, 1 / 200),  # a rounding of tanh may cross a grey level
        native=Contender(lambda: pool.run(program), read), peers={"torch": torch_contender(call)},
    )  # fmt: skip
