"""A training step of the generator, forward and backward, on a GPU: on our kernels, and dense in PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.maps import read_maps
from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.timing import milliseconds
from kernels.cuda.autograd import spade_modulate_codebook
from kernels.cuda.host.library import Library, Norm
from kernels.cuda.modulate.modulate_codebook import Order, sort_index
from kernels.ops.plan import plan
from spade_core.codebook.entries import LevelTensors, codebook, level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.synthesize import label_start
from spade_core.config import preset
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.spade import SPADE

BATCH = 8
DTYPE = torch.bfloat16


def synthesize_on_kernels(
    generator: Generator,
    symbols: Tensor,
    levels: dict[tuple[int, int], LevelTensors],
    orders: dict[tuple[int, int], Order],
    library: Library | None = None,
) -> Tensor:
    """`synthesize_codebook` in training, with modulation and norm on the CUDA kernels."""
    folded = fold_generator(generator, generator.conv_img.weight.dtype)

    def normalise(spade: SPADE, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        entries = codebook(folded[spade], levels[size])
        norm: Norm = "instance" if generator.config.norm == "instance" else "batch"
        return spade_modulate_codebook(
            x.contiguous(memory_format=torch.channels_last), entries, levels[size].index, norm=norm, leaky=False,
            order=orders[size], library=library,
        )[0]  # fmt: skip

    start = label_start(generator.fc, symbols, generator.config).contiguous(memory_format=torch.channels_last)
    out: Tensor = generator(start, normalise)
    return out


def training(setting: Setting) -> Report:
    """Milliseconds of forward and backward at batch 8, bf16; gradients compared with the dense form's in float32."""
    config = preset("coco") if not setting.dry_run else preset("ade20k")
    maps = read_maps(config, setting.labels, count=BATCH if not setting.dry_run else 1)
    device = torch.device("meta" if setting.dry_run else "cuda")
    levels = plan(maps.symbols.astype(np.uint16), list(config.level_sizes), config.symbols, config.spade_kernel)
    tensors = level_tensors(levels, device)
    orders = {size: sort_index(level.index) for size, level in tensors.items()}
    if setting.dry_run:
        return {"would_time": ["spade bf16", "dense eager bf16"], "levels": [list(size) for size in orders]}
    symbols = torch.from_numpy(maps.symbols[np.arange(BATCH) % len(maps.symbols)]).to(device)
    generator = seeded_generator(config).to(device).train()
    narrow = copy.deepcopy(generator).to(DTYPE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(model: Generator, ours: bool) -> None:
        model.zero_grad(set_to_none=True)
        image = (
            synthesize_on_kernels(model, symbols, tensors, orders) if ours else synthesize_dense(model, symbols, None)
        )
        torch.tanh(image).float().square().mean().backward()  # type: ignore[no-untyped-call]

    def gradient(model: Generator) -> Tensor:
        return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])

    step(generator, ours=False)
    exact = gradient(generator)
    rows = []
    for name, ours in (("spade bf16", True), ("dense eager bf16", False)):
        step(narrow, ours)
        cosine = torch.cosine_similarity(gradient(narrow), exact, dim=0)
        ms = milliseconds(lambda ours=ours: step(narrow, ours))  # type: ignore[misc]
        rows.append({"form": name, "batch": BATCH, "ms": ms, "cosine_to_float32": float(cosine)})
    return {"rows": rows}
