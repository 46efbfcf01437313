"""The codebook form: gamma and beta once per distinct label patch, read back through the plan's index.

Exact: SPADE's gamma and beta at a pixel depend only on the label patch around it, so every sum below is one of the
dense form's, computed once per distinct patch. Differentiable in every parameter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.plan import Level
from spade_core.baselines import AnyGenerator
from spade_core.config import HIDDEN, GeneratorConfig
from spade_core.dense import one_hot
from spade_core.generator import Generator
from spade_core.modulate import ByEntry, modulate
from spade_core.spade import SPADE

# Gathered rows are nine times the hidden map; a slice of them stays near the cache and bounds the memory of maps
# whose every pixel differs.
GATHER_ROWS = 4096
# Products have a multiple of so many rows: hardly two maps have as many patches, and on the CPU every new shape of a
# product is compiled anew and its code kept.
ROW_STEP = 256
# Products per tap pay where this many windows share a hidden row: below, adding them up costs what they save. In bf16
# the products are so much cheaper that it never pays.
PER_TAP = 1.5


@dataclass(frozen=True)
class LevelTensors:
    """One level of a plan as tensors on the generator's device.

    Attributes:
        patches3: [U3, k*k] symbols.
        patches5: [U5, k*k] rows of patches3, U3 = outside.
        index: [N, h, w] rows of patches5.
        order: the index sorted, which saves a gradient on the CPU the sorting.
    """

    patches3: Tensor
    patches5: Tensor
    index: Tensor
    order: ByEntry | None = None


@dataclass(frozen=True)
class Folded:
    """The parameters of one SPADE norm, rearranged for the codebook.

    Attributes:
        table: [k*k * (symbols + 1), 128], row t * (symbols + 1) + s: what symbol s adds at tap t; outside adds zero.
        shared_bias: [128].
        weight, bias: [k*k * 128, 2C] and [2C]: gathered hidden rows -> (a, b), the `1 +` in the bias. While training,
            weight is a view of [2C, k*k * 128]: a product reads either, and nothing is transposed in memory.
        norm: applied to x before a*x + b; None when its statistics are folded into weight and bias.
    """

    table: Tensor
    shared_bias: Tensor
    weight: Tensor
    bias: Tensor
    norm: nn.Module | None


@dataclass
class CodebookSeconds:
    """Adds up the time spent in embed and codebook, the part of the form that x does not enter."""

    total: float = 0.0


def level_tensors(levels: Sequence[Level], device: torch.device) -> dict[tuple[int, int], LevelTensors]:
    """The plan's levels by (height, width), as tensors on `device`."""

    def tensor(array: object) -> Tensor:
        return torch.as_tensor(array, dtype=torch.int32).to(device)

    return {
        (level.index.shape[1], level.index.shape[2]): LevelTensors(
            tensor(level.patches3), tensor(level.patches5), tensor(level.index)
        )
        for level in levels
    }


def fold(spade: SPADE, config: GeneratorConfig, dtype: torch.dtype | None = None) -> Folded:
    """Rearrange one norm's parameters; in eval mode batch-norm statistics fold in too, in float64."""
    norm = spade.param_free_norm
    shared, gamma, beta = spade.mlp_shared[0], spade.mlp_gamma, spade.mlp_beta
    assert isinstance(shared, nn.Conv2d)
    g_weight, b_weight = _by_tap(gamma.weight), _by_tap(beta.weight)  # [C, k*k * 128]
    assert isinstance(gamma.bias, Tensor)
    assert isinstance(beta.bias, Tensor)
    g_bias, b_bias = 1 + gamma.bias, beta.bias
    keep: nn.Module | None = norm
    if isinstance(norm, nn.BatchNorm2d) and not spade.training:
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        rstd = torch.rsqrt(norm.running_var.double() + norm.eps)
        shift = norm.running_mean.double() * rstd
        g_weight, b_weight, g_bias, b_bias = (t.double() for t in (g_weight, b_weight, g_bias, b_bias))
        b_weight, b_bias = b_weight - g_weight * shift[:, None], b_bias - g_bias * shift
        g_weight, g_bias = g_weight * rstd[:, None], g_bias * rstd
        keep = None
    dtype = dtype or shared.weight.dtype
    weight = torch.cat([g_weight, b_weight]).to(dtype).t()  # [k*k * 128, 2C]
    return Folded(
        table=symbol_table(shared.weight, config).to(dtype),
        shared_bias=shared.bias.to(dtype) if shared.bias is not None else torch.zeros(HIDDEN, dtype=dtype),
        weight=weight if spade.training and weight.requires_grad else weight.contiguous(),
        bias=torch.cat([g_bias, b_bias]).to(dtype),
        norm=keep,
    )


def fold_generator(generator: AnyGenerator, dtype: torch.dtype | None = None) -> dict[SPADE, Folded]:
    """`fold` of every norm. Inference does this once."""
    return {m: fold(m, generator.config, dtype) for m in generator.modules() if isinstance(m, SPADE)}


def embed(table: Tensor, bias: Tensor, patches: Tensor) -> Tensor:
    """Conv on a one-hot map as a sum of gathered rows: patches [U, k*k] of symbols -> [U, out], before ReLU."""
    taps = patches.shape[1]
    offsets = torch.arange(taps, dtype=patches.dtype, device=patches.device) * (table.shape[0] // taps)
    return F.embedding_bag(patches + offsets, table, mode="sum") + bias


def codebook(folded: Folded, level: LevelTensors) -> Tensor:
    """(a, b) of every distinct patch [U5, 2C]."""
    actv = F.relu(embed(folded.table, folded.shared_bias, level.patches3))  # [U3, 128]
    actv = F.pad(actv, (0, 0, 0, 1))  # [U3 + 1, 128], the last row is outside: the second conv pads with zeros
    half = actv.dtype == torch.bfloat16 or torch.is_autocast_enabled(actv.device.type)
    if not half and PER_TAP * actv.shape[0] <= level.patches5.shape[0]:
        return _per_tap(folded, actv, level.patches5)
    entries = []
    for windows in torch.split(level.patches5, GATHER_ROWS):  # [<= GATHER_ROWS, k*k]
        rows = windows.shape[0]
        padded = F.pad(windows, (0, 0, 0, -rows % ROW_STEP))
        gathered = _gather(actv, padded.flatten()).view(padded.shape[0], -1)  # [.., k*k * 128]
        entries.append(torch.addmm(folded.bias, gathered, folded.weight)[:rows])
    return torch.cat(entries)


def _gather(actv: Tensor, rows: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(actv.device.type):
        return actv.index_select(0, rows)
    gathered: Tensor = _GatherHalf.apply(actv, rows)  # type: ignore[no-untyped-call]
    return gathered


class _GatherHalf(torch.autograd.Function):
    """Rows in bfloat16, as autocast would make of them after gathering; their gradients add up in actv's own dtype."""

    @staticmethod
    def forward(ctx: Any, actv: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape, ctx.dtype = actv.shape, actv.dtype
        return actv.to(torch.get_autocast_dtype(actv.device.type)).index_select(0, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape, dtype=ctx.dtype).index_add_(0, rows, grad.to(ctx.dtype)), None


def _per_tap(folded: Folded, actv: Tensor, windows: Tensor) -> Tensor:
    """Multiply each hidden row once with every tap, then add up the nine products of a window: U3, not U5, rows."""
    taps, hidden, width = windows.shape[1], actv.shape[1], folded.weight.shape[1]
    if folded.weight.is_contiguous():
        weight = folded.weight.view(taps, hidden, width).transpose(0, 1).reshape(hidden, -1)  # [128, k*k * 2C]
    else:
        weight = folded.weight.t().view(width, taps, hidden).transpose(0, 1).reshape(-1, hidden).t()
    products = (actv @ weight).to(actv.dtype).view(actv.shape[0] * taps, -1)  # [(U3 + 1) * k*k, 2C], row u * k*k + t
    rows = windows * taps + torch.arange(taps, dtype=windows.dtype, device=windows.device)
    return F.embedding_bag(rows, products, mode="sum") + folded.bias


def synthesize_codebook(
    generator: AnyGenerator,
    folded: dict[SPADE, Folded] | None,
    symbols: Tensor,
    levels: dict[tuple[int, int], LevelTensors],
    style: Tensor | None,
    seconds: CodebookSeconds | None = None,
) -> Tensor:
    """As `synthesize_dense`: symbols [N, H, W], its plan, style [N, 256] or None -> image before tanh [N, 3, H, W].

    Without `folded` each norm is folded when its turn comes: in training its gradients are then whole, and out of
    memory, as soon as the backward pass leaves it.
    """
    dtype = generator.conv_img.weight.dtype
    seconds = seconds or CodebookSeconds()

    def normalise(spade: SPADE, x: Tensor) -> Tensor:
        began = time.perf_counter()
        level = levels[x.shape[2], x.shape[3]]
        own = fold(spade, generator.config) if folded is None else folded[spade]
        entries = codebook(own, level)
        seconds.total += time.perf_counter() - began
        return modulate(x, entries, level.index, own.norm, level.order)

    if not isinstance(generator, Generator):
        baseline: Tensor = generator(one_hot(symbols, generator.config, dtype), style, normalise)
        return baseline
    start = generator.style_start(style.to(dtype)) if style is not None else label_start(generator, symbols)
    out: Tensor = generator(start.contiguous(memory_format=torch.channels_last), normalise)
    return out


def label_start(generator: Generator, symbols: Tensor) -> Tensor:
    """`fc`, the 3x3 conv on the map brought to the start size: symbols [N, H, W] -> [N, 16 nf, h0, w0]."""
    config, step = generator.config, 2**generator.config.upsamplings
    small = symbols[:, ::step, ::step].long()  # NEAREST by a whole factor: source row = i * step
    padded = F.pad(small, (1, 1, 1, 1), value=config.symbols)
    patches = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # [N, h0, w0, 3, 3]
    assert isinstance(generator.fc, nn.Conv2d)
    assert generator.fc.bias is not None
    rows = embed(symbol_table(generator.fc.weight, config), generator.fc.bias, patches.reshape(-1, 9))
    return rows.view(*small.shape, -1).permute(0, 3, 1, 2)  # [N, 16 nf, h0, w0]


def _by_tap(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)  # [out, k*k * in]: no copy of channels-last weights


class _SymbolTable(torch.autograd.Function):
    """`symbol_table` of [out, k*k * semantic_nc]: only plain matrices are transposed; strided copies are far slower."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, classes: int, edges: bool, taps: int) -> Tensor:
        ctx.shape = classes, edges, taps
        rows = matrix.t().contiguous().view(taps, -1, matrix.shape[0])  # [k*k, semantic_nc, out]
        table = rows.new_empty((taps, classes * (1 + edges) + 1, matrix.shape[0]))
        table[:, -1] = 0
        if edges:
            pairs = table[:, :-1].view(taps, classes, 2, -1)
            pairs[:, :, 0] = rows[:, :classes]
            torch.add(rows[:, :classes], rows[:, -1:], out=pairs[:, :, 1])
        else:
            table[:, :-1] = rows
        return table.flatten(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        classes, edges, taps = ctx.shape
        symbols = grad.view(taps, -1, grad.shape[1])[:, :-1]
        if edges:
            pairs = symbols.view(taps, classes, 2, -1)
            rows = grad.new_empty((taps, classes + 1, grad.shape[1]))
            torch.add(pairs[:, :, 0], pairs[:, :, 1], out=rows[:, :classes])
            rows[:, -1] = pairs[:, :, 1].sum(1)
        else:
            rows = symbols
        return rows.flatten(0, 1).t().contiguous(), None, None, None


def symbol_table(weight: Tensor, config: GeneratorConfig) -> Tensor:
    """Conv weights on one-hot maps [out, semantic_nc, k, k] -> what each symbol adds at each tap, taps outermost.

    [k*k * (symbols + 1), out]; the row of "outside the image" is zero, an edge symbol's is its class plus the edge.
    """
    taps = weight.shape[2] * weight.shape[3]
    table: Tensor = _SymbolTable.apply(  # type: ignore[no-untyped-call]
        _by_tap(weight), config.classes, config.instance_edges, taps
    )
    return table
