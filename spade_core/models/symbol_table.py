"""A conv on a one-hot map without the one-hot map: a table with a row for each symbol and tap, and sums of its rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.config import GeneratorConfig


def embed(table: Tensor, bias: Tensor, patches: Tensor) -> Tensor:
    """A conv on a one-hot map as a sum of gathered rows: bias + sum over taps t of table[t][patches[:, t]].

    Args:
        table: [k*k * (symbols + 1), out], from `symbol_table`.
        bias: [out].
        patches: int32 or int64 [U, k*k], symbols of each patch, taps row-major.

    Returns [U, out], before any activation.
    """
    taps = patches.shape[1]
    offsets = torch.arange(taps, dtype=patches.dtype, device=patches.device) * (table.shape[0] // taps)
    return F.embedding_bag(patches + offsets, table, mode="sum") + bias


def symbol_table(weight: Tensor, config: GeneratorConfig) -> Tensor:
    """Conv weights on one-hot maps [out, semantic_nc, k, k] -> what each symbol adds at each tap, taps outermost.

    [k*k * (symbols + 1), out]. The last row of a tap, "outside the image", is zero. The row of an edge symbol is the
    sum of its class and the edge.
    """
    taps = weight.shape[2] * weight.shape[3]
    table: Tensor = _SymbolTable.apply(  # type: ignore[no-untyped-call]
        by_tap(weight), config.classes, config.instance_edges, taps
    )
    return table


def by_tap(weight: Tensor) -> Tensor:
    """Conv weights [out, in, k, k] -> [out, k*k * in], taps outermost. No copy of channels-last weights."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


class _SymbolTable(torch.autograd.Function):
    """`symbol_table` of weights [out, k*k * semantic_nc].

    Only plain matrices are transposed, since strided copies are far slower.
    """

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
