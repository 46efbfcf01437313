"""Cases of the kernels that make a map's codebooks (plan, embed, codebook), beside PyTorch and NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cpu_kernels.timing import Case, Contender, exact, rounding, size_name, torch_contender, torch_dtype
from kernels.constants import HIDDEN
from kernels.isa import Form, Isa, input_dtype, isa_dtype
from kernels.layouts import (
    BLOCK,
    Array,
    DType,
    Float32,
    aligned_empty,
    blocks,
    from_entries,
    from_storage,
    storage_dtype,
    to_entries,
    to_storage,
)
from kernels.ops.codebook import Int8, codebook, pack_bias, pack_codebook, pack_codebook_int8
from kernels.ops.embed import embed
from kernels.ops.plan import Level, plan, plan_numpy
from kernels.program import Pool, Program
from spade_core.config import GeneratorConfig
from spade_core.types import Int32, Symbols

# ---- Plan ----


def plan_case(symbols: Symbols, config: GeneratorConfig) -> Case:
    """Return the case of all levels of one map, uint16 [1, H, W], on one thread."""
    arguments = (symbols, config.level_sizes, config.symbols, config.spade_kernel)

    def arrays(levels: list[Level]) -> Sequence[Array]:
        return [array for level in levels for array in (level.patches3, level.patches5, level.index)]

    outputs = arrays(plan(*arguments))
    return Case(
        "plan", f"{len(config.level_sizes)} levels {symbols.shape[1]}x{symbols.shape[2]}", "int32", "any", 1,
        operations=0, bytes=symbols.nbytes + sum(array.nbytes for array in outputs), bound="copy",
        limits=(0.0,) * len(outputs),
        native=Contender(lambda: plan(*arguments), lambda: arrays(plan(*arguments))),
        peers={"NumPy": Contender(lambda: plan_numpy(*arguments), lambda: arrays(plan_numpy(*arguments)))},
    )  # fmt: skip


# ---- Embed ----


def embed_case(isa: Isa, level: Level, n_symbols: int, pool: Pool) -> Case:
    """Return the case of the hidden rows of a level's distinct 3x3 patches."""
    dtype, (rows, taps) = input_dtype(isa), level.patches3.shape
    random = np.random.default_rng(0)
    table, bias = exact(random, taps, n_symbols + 1, HIDDEN), exact(random, HIDDEN)
    table[:, -1] = 0
    out = aligned_empty((rows + 1, HIDDEN), storage_dtype(dtype))
    program = Program([embed(isa, table, bias, level.patches3, out, relu=True, zero_row=True)])
    # The bytes of the table rows that some patch names; other rows are not read.
    read = len(np.unique(level.patches3 + np.arange(taps) * (n_symbols + 1))) * HIDDEN * table.itemsize
    return Case(
        "embed", f"{rows} patches {size_name(level)}", dtype, isa, pool.threads,
        operations=rows * taps * HIDDEN, bytes=read + level.patches3.nbytes + out.nbytes, bound="copy",
        limits=(rounding(dtype),),
        native=Contender(lambda: pool.run(program), lambda: [from_storage(out[:-1])]),
        peers=_torch_embeds(dtype, table, bias, level),
    )  # fmt: skip


def _torch_embeds(dtype: DType, table: Float32, bias: Float32, level: Level) -> dict[str, Contender]:
    taps, of_tap, _ = table.shape
    rows = torch.from_numpy(level.patches3 + np.arange(taps, dtype=np.int32) * np.int32(of_tap))  # [U3, taps]
    kind = torch_dtype(dtype)

    def peer(stored: torch.dtype) -> Contender:
        flat, offset = torch.from_numpy(table).view(-1, HIDDEN).to(stored), torch.from_numpy(bias).to(stored)
        return torch_contender(lambda: F.embedding_bag(rows, flat, mode="sum").add_(offset).relu_().to(kind))

    return {"torch, float32 table": peer(torch.float32)} | (
        {"torch, bf16 table": peer(kind)} if dtype == "bf16" else {}
    )


# ---- Codebook ----


def codebook_case(isa: Isa, level: Level, channels: int, form: Form, pool: Pool) -> Case:
    """Return the case of the entries of a level's distinct 5x5 patches."""
    dtype, (rows, taps) = input_dtype(isa), level.patches5.shape
    random, hidden_rows = np.random.default_rng(0), len(level.patches3)
    actv = np.maximum(exact(random, hidden_rows + 1, HIDDEN), 0)
    actv[-1] = 0
    weight = exact(random, taps * HIDDEN, 2 * channels, scale=(taps * HIDDEN) ** -0.5)
    bias = exact(random, 2 * channels)
    stored = to_storage(actv, dtype)
    entries = aligned_empty((blocks(channels), rows, 2, BLOCK), storage_dtype(isa_dtype(isa)))
    packed = pack_codebook(isa, weight, channels)
    step = codebook(isa, stored, level.patches5, packed, pack_bias(bias), entries, form=form)
    program = Program([step])
    products, sums = (rows, 0) if form == "gathered" else (hidden_rows + 1, rows * taps * 2 * channels)
    return Case(
        f"codebook {form.replace('_', ' ')}", f"{channels} {size_name(level)}", dtype, isa, pool.threads,
        operations=2 * products * weight.size + sums,
        bytes=level.patches5.nbytes + (stored.size + weight.size + 2 * channels * rows) * stored.itemsize,
        bound="peak", limits=(rounding(dtype),),
        native=Contender(
            lambda: pool.run(program), lambda: [np.concatenate(from_entries(entries, channels), axis=1)]
        ),
        peers=_torch_codebooks(dtype, actv, level.patches5, weight, bias),
    )  # fmt: skip


def _torch_codebooks(
    dtype: DType, actv: Float32, patches: Int32, weight: Float32, bias: Float32
) -> dict[str, Contender]:
    """The gathered and the per-tap form in PyTorch, to entries [U5, 2C]."""
    kind, taps, wide = torch_dtype(dtype), patches.shape[1], len(bias)
    x, b = torch.from_numpy(actv).to(kind), torch.from_numpy(bias).to(kind)
    rows = torch.from_numpy(patches)
    flat = rows.flatten()
    w = torch.from_numpy(weight).to(kind).T.contiguous()  # [2C, taps * 128]
    w_taps = w.view(wide, taps, HIDDEN).transpose(0, 1).reshape(taps * wide, HIDDEN).contiguous()
    of_tap = rows * taps + torch.arange(taps, dtype=torch.int32)  # rows of [(U3 + 1) * taps, 2C]

    def gather() -> Tensor:
        return x.index_select(0, flat).view(len(rows), -1)  # [U5, taps * 128]

    peers = {"torch, gathered": torch_contender(lambda: F.linear(gather(), w, b))}
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        linear = torch.ops.mkldnn._linear_pointwise
        pack = torch.ops.mkldnn._reorder_linear_weight
        packed, packed_taps = pack(w, len(rows)), pack(w_taps, len(x))

        def per_tap() -> Tensor:
            products = linear(x, packed_taps, None, "none", [], "").view(-1, wide)  # [(U3 + 1) * taps, 2C]
            return F.embedding_bag(of_tap, products, mode="sum").add_(b)

        peers["oneDNN, gathered"] = torch_contender(lambda: linear(gather(), packed, b, "none", [], ""))
        peers["oneDNN, per tap"] = torch_contender(per_tap)
    return peers


# ---- Codebook of int8 products ----


def codebook_int8_case(level: Level, n_symbols: int, channels: int, pool: Pool) -> Case:
    """Return the case of the entries of a level from int8 products, on amx."""
    (rows, taps), hidden_rows = level.patches5.shape, len(level.patches3)
    random = np.random.default_rng(0)
    actv = random.integers(0, 256, (hidden_rows + 1, HIDDEN)).astype(np.uint8)
    actv[-1] = 0
    weight = random.integers(-127, 128, (taps * HIDDEN, 2 * channels)).astype(np.int8)
    scale = (2.0 ** random.uniform(-18, -16, 2 * channels)).astype(np.float32)
    bias = exact(random, 2 * channels)
    entries = aligned_empty((blocks(channels), rows, 2, BLOCK), storage_dtype(isa_dtype("amx")))
    a, b = np.split(_interior(level, n_symbols, actv, weight, scale, bias), 2, axis=1)
    int8 = Int8(pack_bias(scale), level.patches3, to_entries(a, b, "float16"))
    step = codebook(
        "amx", actv, level.patches5, pack_codebook_int8(weight, channels), pack_bias(bias), entries,
        form="gathered", int8=int8,
    )  # fmt: skip
    program = Program([step])
    return Case(
        "codebook int8", f"{channels} {size_name(level)}", "int8", "amx", pool.threads,
        operations=2 * rows * weight.size,
        bytes=level.patches5.nbytes + actv.size + weight.size + 2 * channels * rows * entries.itemsize,
        bound="int8 peak", limits=(rounding("bf16"),),
        native=Contender(
            lambda: pool.run(program), lambda: [np.concatenate(from_entries(entries, channels), axis=1)]
        ),
        peers=_onednn_int8(actv, level.patches5, weight, scale, bias),
    )  # fmt: skip


def _interior(
    level: Level, n_symbols: int, actv: npt.NDArray[np.uint8], weight: npt.NDArray[np.int8], scale: Float32,
    bias: Float32,
) -> Float32:  # fmt: skip
    """The entries of patches of one symbol, from products as the peers compute them, so that all agree."""
    table = np.zeros((n_symbols, len(bias)), np.float32)
    sums = weight.reshape(-1, HIDDEN, len(bias)).sum(axis=0, dtype=np.int64)  # all taps see the same row
    for row in np.flatnonzero((level.patches3 == level.patches3[:, :1]).all(axis=1)):
        table[level.patches3[row, 0]] = scale * (actv[row] @ sums) + bias
    return table


def _onednn_int8(
    actv: npt.NDArray[np.uint8], patches: Int32, weight: npt.NDArray[np.int8], scale: Float32, bias: Float32
) -> dict[str, Contender]:
    """oneDNN's quantised linear layer on gathered rows, called through PyTorch, with a bf16 result."""
    x, rows, flat = torch.from_numpy(actv), len(patches), torch.from_numpy(patches).flatten()
    b, scales = torch.from_numpy(bias), torch.from_numpy(scale)
    zeros = torch.zeros(len(bias), dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(weight).T.contiguous(), [rows, len(weight)])

    def linear() -> Tensor:
        gathered = x.index_select(0, flat).view(rows, -1)  # [U5, taps * 128]
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            gathered, 1.0, 0, packed, scales, zeros, b, 1.0, 0, torch.bfloat16, "none", [], ""
        )
        return out

    return {"oneDNN int8, gathered": torch_contender(linear)}
