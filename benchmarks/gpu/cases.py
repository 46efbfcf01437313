"""The cases of the GPU benchmark: every CUDA kernel on inputs of a generator's sizes, with the expected outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.maps import Maps
from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import (
    GRADIENT_LIMITS,
    LIMITS,
    Case,
    Outputs,
    Planned,
    away_from_the_kink,
    dtype_name,
    random_map,
    random_values,
    shape_name,
    two_norm_error,
)
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
from kernels.ops.plan import Level, plan
from spade_core.codebook.plans import plan_levels
from spade_core.config import GeneratorConfig, level_sizes
from spade_core.types import Symbols

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def cases(
    config: GeneratorConfig, maps: Maps, device: torch.device, batch: int, dtypes: Sequence[torch.dtype] = DTYPES
) -> Iterator[Planned]:
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
    for dtype in dtypes:
        for level, channels, shift in (
            (levels[0], 4 * config.nf, 1),
            (levels[1], 2 * config.nf, 1),
            (levels[1], config.nf, 0),
        ):
            of = Modulated(level, channels, shift, dtype, device)
            yield modulate_codebook_case(of)
            if dtype != torch.bfloat16:
                yield codebook_backward_case(of)
                yield from dense_cases(of)
        yield from codebook_cases(levels[1], config.nf, dtype, device)
        yield image_case((batch, config.nf, *size), dtype, device)
        if dtype != torch.float32:
            yield all_codebooks_case(config, symbols, dtype, device)


def plan_case(symbols: Symbols, config: GeneratorConfig, device: torch.device) -> Planned:
    """The plan of all levels of a generator; the expected index comes from the plan kernel of the CPU."""
    sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)

    def make() -> Case:
        planned = CudaPlan(symbols.shape, sizes, config.symbols, config.spade_kernel, device)
        planned.symbols.copy_(torch.from_numpy(symbols))

        def call() -> Outputs:
            planned.find()
            return (planned.index,)

        def expected() -> Outputs:
            levels = plan_levels(symbols, config)
            return (torch.from_numpy(np.concatenate([level.index.ravel() for level in levels])).to(device),)

        return Case(call, expected, None, 0.0, 10 * planned.index.numel(), 0)

    return Planned("plan", f"{len(symbols)}x{config.height}x{config.width}, {len(sizes)} levels", "int32", make)


@dataclass(frozen=True)
class Modulated:
    """A modulation of C channels at a level of real patches."""

    level: Level
    channels: int
    shift: int
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, C, H, W] of the output."""
        n, height, width = self.level.index.shape
        return n, self.channels, height, width

    def planned(self, name: str, shift: int, make: Callable[[], Case]) -> Planned:
        """A case of this modulation."""
        return Planned(name, shape_name(*self.shape, shift), dtype_name(self.dtype), make)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """x, entries and index of the codebook form."""
        n, channels, height, width = self.shape
        x = random_map((n, channels, height >> self.shift, width >> self.shift), self.dtype, self.device)
        entries = random_values((len(self.level.patches5), 2 * channels), self.dtype, self.device, 1)
        return x, entries, torch.from_numpy(self.level.index).to(self.device)


def modulate_codebook_case(of: Modulated) -> Planned:
    """out = lrelu(a[index] x + b[index]), with random entries for the patches of a real level."""
    shift, how = of.shift, Modulation(shift=of.shift)

    def make() -> Case:
        x, entries, index = of.inputs()

        def eager() -> Tensor:
            wide = F.interpolate(x, scale_factor=2, mode="nearest") if shift else x
            a, b = F.embedding(index, entries).permute(0, 3, 1, 2).chunk(2, dim=1)
            return F.leaky_relu(torch.addcmul(b, a, wide), SLOPE)

        pixels = index.numel()
        moved = (pixels + x.numel() // of.channels) * of.channels * x.element_size() + 4 * pixels
        return Case(
            lambda: (modulate_codebook(x, entries, index, how),),
            lambda: (modulate_codebook_torch(x.double(), entries.double(), index, how),),
            eager, LIMITS[of.dtype], moved + entries.numel() * x.element_size(), 2 * pixels * of.channels,
            triton=triton_peers.peer(lambda: (triton_peers.modulate_codebook(x, entries, index, shift=shift),)),
        )  # fmt: skip

    return of.planned("modulate_codebook", shift, make)


def codebook_backward_case(of: Modulated) -> Planned:
    """The gradients at x and, by sorted sums, at the entries."""
    how = Modulation(shift=of.shift)

    def make() -> Case:
        x, entries, index = of.inputs()
        linear = Modulation(shift=of.shift, leaky=False)
        values = modulate_codebook_torch(x.double(), entries.double(), index, linear)
        dy = away_from_the_kink(random_map(of.shape, of.dtype, of.device, 2), values)
        order = sort_index(index)
        moved = (index.numel() + 2 * x.numel() // of.channels) * of.channels * x.element_size() + 12 * index.numel()
        return Case(
            lambda: modulate_codebook_backward(x, entries, index, dy, how, order=order),
            lambda: modulate_codebook_backward_torch(x.double(), entries.double(), index, dy.double(), how),
            None, GRADIENT_LIMITS[of.dtype], moved + entries.numel() * (x.element_size() + 4),
            7 * index.numel() * of.channels, judge=two_norm_error,
        )  # fmt: skip

    return of.planned("modulate_codebook_backward", of.shift, make)


def dense_cases(of: Modulated) -> Iterator[Planned]:
    """The dense form forward with given, instance and batch statistics, and backward through instance norm."""
    for norm in ("given", "instance", "batch"):
        yield of.planned(f"modulate_dense {norm}", 0, lambda norm=norm: _dense(of, norm))  # type: ignore[misc]
    yield of.planned("modulate_dense_backward instance", 0, lambda: _dense_backward(of))


def _maps(of: Modulated, count: int) -> list[Tensor]:
    return [random_map(of.shape, of.dtype, of.device, seed) for seed in range(count)]


def _dense(of: Modulated, norm: str) -> Case:
    x, gamma, beta = _maps(of, 3)
    mean, rstd = torch.zeros(1, of.channels, device=of.device), torch.ones(1, of.channels, device=of.device)
    given = Statistics(mean, rstd) if norm == "given" else None
    norms: dict[str, Callable[[], Tensor]] = {
        "given": lambda: F.batch_norm(x, mean[0].to(x.dtype), rstd[0].to(x.dtype), eps=0.0),
        "instance": lambda: F.instance_norm(x),
        "batch": lambda: F.batch_norm(x, None, None, training=True),
    }
    peers: dict[str, Callable[[], Outputs]] = {
        "given": lambda: (triton_peers.modulate_dense(x, gamma, beta, mean, rstd),),
        "instance": lambda: (triton_peers.modulate_dense_instance(x, gamma, beta),),
    }

    def expected() -> Outputs:
        exact = Statistics(mean.double(), rstd.double()) if given else statistics_torch(x.double(), norm)  # type: ignore[arg-type]
        return (modulate_dense_torch(x.double(), gamma.double(), beta.double(), exact),)

    return Case(
        lambda: modulate_dense(x, gamma, beta, norm=norm, statistics=given)[:1],  # type: ignore[arg-type]
        expected,
        lambda: F.leaky_relu(norms[norm]() * (1 + gamma) + beta, SLOPE),
        LIMITS[of.dtype], (4 if given else 5) * x.numel() * x.element_size(), 5 * x.numel(),
        triton=triton_peers.peer(peers.get(norm)),
    )  # fmt: skip


def _dense_backward(of: Modulated) -> Case:
    x, gamma, beta, random = _maps(of, 4)
    wide = (x.double(), gamma.double(), beta.double())
    dy = away_from_the_kink(random, modulate_dense_torch(*wide, statistics_torch(wide[0], "instance"), leaky=False))
    del wide

    def call() -> Outputs:
        return modulate_dense_backward(x, gamma, beta, dy, norm_statistics(x, "instance"))

    def expected() -> Outputs:
        exact = statistics_torch(x.double(), "instance")
        return modulate_dense_backward_torch(x.double(), gamma.double(), beta.double(), dy.double(), exact)

    size = x.numel() * x.element_size()
    return Case(
        call, expected, None, GRADIENT_LIMITS[of.dtype], 13 * size, 18 * x.numel(), judge=two_norm_error
    )  # fmt: skip
