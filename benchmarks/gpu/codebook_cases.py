"""Cases of the CUDA kernels that compute a generator's codebooks and its image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import LIMITS, Case, Outputs, Planned, dtype_name, random_map, random_values, shape_name
from kernels.constants import HIDDEN
from kernels.cuda.codebook.codebook import Codebook, Embed, codebook, embed, per_tap_weight
from kernels.cuda.image.image import image_conv, image_conv_torch
from kernels.ops.plan import Level
from serving.engines.cuda.weights import walk_blocks
from spade_core.codebook.plans import plan_levels
from spade_core.config import GeneratorConfig
from spade_core.models.generator import Generator
from spade_core.types import Symbols


def codebook_cases(level: Level, channels: int, dtype: torch.dtype, device: torch.device) -> Iterator[Planned]:
    """Cases of embed, and of both forms of the codebook beside cuBLAS on rows gathered by PyTorch."""
    rows3, rows5 = len(level.patches3), len(level.patches5)
    yield Planned("embed", f"{rows3} rows", dtype_name(dtype), lambda: _embed(level, dtype, device))
    for name, per_tap in (("codebook gathered", False), ("codebook per tap", True)):
        yield Planned(
            name, f"{rows5} rows, {rows3} of actv, C {channels}", dtype_name(dtype),
            lambda per_tap=per_tap: _product(level, channels, dtype, device, per_tap=per_tap),  # type: ignore[misc]
        )  # fmt: skip


def _embed(level: Level, dtype: torch.dtype, device: torch.device) -> Case:
    patches3 = torch.from_numpy(level.patches3).to(device)
    symbols, rows3 = int(level.patches3.max()), len(level.patches3)
    table = random_values((9, symbols + 1, HIDDEN), dtype, device)
    bias = random_values((HIDDEN,), torch.float32, device)
    table[:, -1] = 0
    actv = torch.zeros((rows3 + 1, HIDDEN), dtype=dtype, device=device)
    element = actv.element_size()

    def call() -> Outputs:
        embed(Embed(table, bias, patches3, actv, relu=True, zero_row=True))
        return (actv,)

    def expected() -> Outputs:
        taps = torch.arange(9, device=device)
        return (F.pad((table.double()[taps, patches3.long()].sum(1) + bias.double()).relu(), (0, 0, 0, 1)),)

    moved = rows3 * (36 + HIDDEN * element) + table.numel() * element
    return Case(call, expected, None, LIMITS[dtype], moved, 9 * rows3 * HIDDEN)


def _product(level: Level, channels: int, dtype: torch.dtype, device: torch.device, *, per_tap: bool) -> Case:
    problem = _codebook_problem(level, channels, dtype, device, 0)
    ours, rows = problem, len(level.patches5)
    if per_tap:
        rows = len(level.patches3)
        products = torch.empty((rows + 1, 18 * channels), device=device)
        ours = replace(problem, weight=per_tap_weight(problem.weight), products=products)
    narrow, turned = problem.bias.to(dtype), problem.weight.T.contiguous()

    def call() -> Outputs:
        codebook(ours)
        return (ours.entries,)

    def in_triton() -> Outputs:
        return (triton_peers.codebook_product(problem.actv, problem.patches, turned, problem.bias),)

    return Case(
        call, lambda: (_exact(problem),), lambda: _cublas(problem, narrow), LIMITS[dtype], _bytes(problem),
        2 * rows * problem.weight.numel(),
        triton=triton_peers.peer(in_triton if dtype != torch.float32 else None),
    )  # fmt: skip


def all_codebooks_case(config: GeneratorConfig, symbols: Symbols, dtype: torch.dtype, device: torch.device) -> Planned:
    """The codebooks of all norms of a generator in one call, beside one cuBLAS call for each norm."""

    def make() -> Case:
        levels = plan_levels(symbols, config)
        with torch.device("meta"):
            blocks = walk_blocks(Generator(config))
        problems: list[Codebook] = []
        for block, level, _ in blocks:
            for norm in (block.norm_0, block.norm_s, block.norm_1):
                if norm is not None:
                    channels = norm.mlp_gamma.out_channels
                    problems.append(_codebook_problem(levels[level], channels, dtype, device, len(problems)))

        def call() -> Outputs:
            codebook(*problems)
            return tuple(problem.entries for problem in problems)

        narrow = [problem.bias.to(dtype) for problem in problems]
        return Case(
            call, lambda: tuple(_exact(problem) for problem in problems),
            lambda: [_cublas(problem, bias) for problem, bias in zip(problems, narrow, strict=True)],
            LIMITS[dtype], sum(_bytes(problem) for problem in problems),
            sum(2 * len(problem.patches) * problem.weight.numel() for problem in problems),
        )  # fmt: skip

    return Planned("all codebooks", f"{len(symbols)} maps, all norms", dtype_name(dtype), make)


def _exact(problem: Codebook) -> Tensor:
    rows = problem.actv.double()[problem.patches.long()].view(len(problem.patches), -1)  # [U5, taps * 128]
    return rows @ problem.weight.double().T + problem.bias.double()


def _cublas(problem: Codebook, bias: Tensor) -> Tensor:
    rows = problem.actv.index_select(0, problem.patches.flatten()).view(len(problem.patches), -1)
    return torch.addmm(bias, rows, problem.weight.T)


def _bytes(problem: Codebook) -> int:
    elements = problem.actv.numel() + problem.weight.numel() + problem.entries.numel()
    return elements * problem.actv.element_size() + 4 * problem.patches.numel()


def _codebook_problem(level: Level, channels: int, dtype: torch.dtype, device: torch.device, seed: int) -> Codebook:
    patches = torch.from_numpy(level.patches5).to(device)
    actv = random_values((len(level.patches3) + 1, HIDDEN), dtype, device, seed).relu()
    weight = random_values((2 * channels, patches.shape[1] * HIDDEN), dtype, device, seed + 1) / 34
    bias = random_values((2 * channels,), torch.float32, device, seed + 2)
    entries = torch.empty((len(patches), 2 * channels), dtype=dtype, device=device)
    return Codebook(actv, patches, weight, bias, entries)


def image_case(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Planned:
    """The last conv, tanh and bytes of x [N, C, H, W]."""
    return Planned("image", shape_name(*shape, 0), dtype_name(dtype), lambda: _image(shape, dtype, device))


def _image(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Case:
    n, channels, height, width = shape
    x = random_map(shape, dtype, device)
    weight = random_map((3, channels, 3, 3), dtype, device, 1) / 24
    bias = random_values((3,), torch.float32, device, 2)
    values = torch.empty((n, 3, height, width), device=device)
    pixels = torch.empty((n, height, width, 3), dtype=torch.uint8, device=device)
    narrow = bias.to(dtype)

    def call() -> Outputs:
        image_conv(x, weight, bias, values=values, pixels=pixels)
        return (values,)

    def eager() -> Tensor:
        image = torch.tanh(F.conv2d(F.leaky_relu(x, 0.2), weight, narrow, padding=1).float())
        return ((image + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    return Case(
        call,
        lambda: (image_conv_torch(x.double(), weight.double(), bias.double()),), eager, LIMITS[dtype],
        x.numel() * x.element_size() + 15 * n * height * width, 54 * x.numel(),
    )  # fmt: skip
