"""The cases of the GPU benchmark: every CUDA kernel on inputs of a generator's sizes, with the expected outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.maps import Maps
from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import LIMITS, Case, Outputs, dtype_name, random_map, random_values, shape_name
from benchmarks.gpu.codebook_cases import all_codebooks_case, codebook_cases, image_case
from kernels.constants import SLOPE
from kernels.cuda.modulate.modulate_codebook import (
    Modulation,
    modulate_codebook,
    modulate_codebook_backward,
    modulate_codebook_backward_torch,
    modulate_codebook_torch,
    sort_index,
)
from kernels.cuda.modulate.modulate_dense import (
    modulate_dense,
    modulate_dense_backward,
    modulate_dense_backward_torch,
    modulate_dense_torch,
)
from kernels.cuda.norm.norm import Statistics, norm_statistics, statistics_torch
from kernels.cuda.plan.plan import CudaPlan
from kernels.ops.plan import Level, plan, plan_numpy
from spade_core.config import GeneratorConfig


def cases(config: GeneratorConfig, maps: Maps, device: torch.device, batch: int) -> Iterator[Case]:
    """Cases of the plan, of the codebook, of the modulations of the last two blocks (most of the bytes), and the image.

    Args:
        config: of the generator whose sizes the cases have.
        maps: label maps; repeated as often as `batch` asks.
    """
    symbols = maps.symbols[np.arange(batch) % len(maps.symbols)].astype(np.uint16)
    size = (config.height, config.width)
    half = (size[0] // 2, size[1] // 2)
    levels = plan(symbols, [half, size], config.symbols, 3)
    yield plan_case(symbols, config, device)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for level, channels, shift in (
            (levels[0], 4 * config.nf, 1),
            (levels[1], 2 * config.nf, 1),
            (levels[1], config.nf, 0),
        ):
            yield modulate_codebook_case(level, channels, shift, dtype, device)
            if dtype != torch.bfloat16:
                yield codebook_backward_case(level, channels, shift, dtype, device)
                yield from dense_cases(level, channels, dtype, device)
        yield from codebook_cases(levels[1], config.nf, dtype, device)
        yield image_case((batch, config.nf, *size), dtype, device)
        if dtype != torch.float32:
            yield all_codebooks_case(config, symbols, dtype, device)


def plan_case(
    symbols: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], config: GeneratorConfig, device: torch.device
) -> Case:
    """The plan of all levels of a generator; the expected index comes from the specification on the CPU."""
    sizes = list(config.level_sizes)
    held: list[CudaPlan] = []

    def call() -> Outputs:
        if not held:
            held.append(CudaPlan(symbols.shape, sizes, config.symbols, 3, device))  # type: ignore[arg-type]
            held[0].symbols.copy_(torch.from_numpy(symbols))
        held[0].find()
        return (held[0].index,)

    def expected() -> Outputs:
        levels = plan_numpy(symbols, sizes, config.symbols, 3)
        return (torch.from_numpy(np.concatenate([level.index.ravel() for level in levels])).to(device),)

    positions = len(symbols) * sum(h * w for h, w in sizes)
    shape = f"{len(symbols)}x{config.height}x{config.width}, {len(sizes)} levels"
    return Case("plan", shape, "int32", call, expected, None, 0.0, 10 * positions, 0)


def modulate_codebook_case(level: Level, channels: int, shift: int, dtype: torch.dtype, device: torch.device) -> Case:
    """out = lrelu(a[index] x + b[index]), with random entries for the patches of a real level."""
    n, height, width = level.index.shape
    index, rows = torch.from_numpy(level.index).to(device), len(level.patches5)
    x = random_map((n, channels, height >> shift, width >> shift), dtype, device)
    entries = random_values((rows, 2 * channels), dtype, device, 1)

    def eager() -> Tensor:
        wide = F.interpolate(x, scale_factor=2, mode="nearest") if shift else x
        a, b = F.embedding(index, entries).permute(0, 3, 1, 2).chunk(2, dim=1)
        return F.leaky_relu(torch.addcmul(b, a, wide), SLOPE)

    pixels, how = index.numel(), Modulation(shift=shift)
    moved = (pixels + x.numel() // channels) * channels * x.element_size() + 4 * pixels
    return Case(
        "modulate_codebook", shape_name(n, channels, height, width, shift), dtype_name(dtype),
        lambda: (modulate_codebook(x, entries, index, how),),
        lambda: (modulate_codebook_torch(x.double(), entries.double(), index, how),),
        eager, LIMITS[dtype], moved + entries.numel() * x.element_size(), 2 * pixels * channels,
        triton=triton_peers.peer(lambda: (triton_peers.modulate_codebook(x, entries, index, shift=shift),)),
    )  # fmt: skip


def codebook_backward_case(level: Level, channels: int, shift: int, dtype: torch.dtype, device: torch.device) -> Case:
    """The gradients at x and, by sorted sums, at the entries."""
    n, height, width = level.index.shape
    index, rows = torch.from_numpy(level.index).to(device), len(level.patches5)
    x = random_map((n, channels, height >> shift, width >> shift), dtype, device)
    entries = random_values((rows, 2 * channels), dtype, device, 1)
    dy = random_map((n, channels, height, width), dtype, device, 2)
    order, how = sort_index(index), Modulation(shift=shift)
    moved = (index.numel() + 2 * x.numel() // channels) * channels * x.element_size() + 12 * index.numel()
    return Case(
        "modulate_codebook_backward", shape_name(n, channels, height, width, shift), dtype_name(dtype),
        lambda: modulate_codebook_backward(x, entries, index, dy, how, order=order),
        lambda: modulate_codebook_backward_torch(x.double(), entries.double(), index, dy.double(), how),
        None, 30 * LIMITS[dtype], moved + entries.numel() * (x.element_size() + 4), 7 * index.numel() * channels,
    )  # fmt: skip


def dense_cases(level: Level, channels: int, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """The dense form forward with given, instance and batch statistics, and backward through instance norm."""
    n, height, width = level.index.shape
    x, gamma, beta, dy = (random_map((n, channels, height, width), dtype, device, seed) for seed in range(4))
    mean, rstd = torch.zeros(1, channels, device=device), torch.ones(1, channels, device=device)
    shape, size = shape_name(n, channels, height, width, 0), x.numel() * x.element_size()
    wide = (x.double(), gamma.double(), beta.double())

    def eager(norm: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: F.leaky_relu(norm() * (1 + gamma) + beta, SLOPE)

    norms = {
        "given": lambda: F.batch_norm(x, mean[0].to(dtype), rstd[0].to(dtype), eps=0.0),
        "instance": lambda: F.instance_norm(x),
        "batch": lambda: F.batch_norm(x, None, None, training=True),
    }
    peers: dict[str, Callable[[], Outputs]] = {
        "given": lambda: (triton_peers.modulate_dense(x, gamma, beta, mean, rstd),),
        "instance": lambda: (triton_peers.modulate_dense_instance(x, gamma, beta),),
    }
    for name, norm in norms.items():
        given = Statistics(mean, rstd) if name == "given" else None

        def expected(name: str = name) -> Outputs:
            exact = Statistics(mean.double(), rstd.double()) if name == "given" else statistics_torch(wide[0], name)  # type: ignore[arg-type]
            return (modulate_dense_torch(*wide, exact),)

        yield Case(
            f"modulate_dense {name}", shape, dtype_name(dtype),
            lambda name=name, given=given: modulate_dense(x, gamma, beta, norm=name, statistics=given)[:1],  # type: ignore[misc]
            expected, eager(norm), LIMITS[dtype], (4 if name == "given" else 5) * size, 5 * x.numel(),
            triton=triton_peers.peer(peers.get(name)),
        )  # fmt: skip

    def backward() -> Outputs:
        return modulate_dense_backward(x, gamma, beta, dy, norm_statistics(x, "instance"))

    def exact() -> Outputs:
        return modulate_dense_backward_torch(*wide, dy.double(), statistics_torch(wide[0], "instance"))

    yield Case(
        "modulate_dense_backward instance", shape, dtype_name(dtype), backward, exact, None, 4 * LIMITS[dtype],
        13 * size, 18 * x.numel(),
    )  # fmt: skip
