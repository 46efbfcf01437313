"""A training step of the generator, forward and backward, on a GPU: the codebook form on our kernels, and dense."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.timing import REPEATS, Clock
from kernels.cuda.host.library import installed
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.modulate import by_entry
from spade_core.codebook.plans import plan_levels
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator

BATCH = 8
DTYPE = torch.bfloat16


def training(setting: Setting) -> Report:
    """Milliseconds of forward and backward at batch 8, bf16; gradients compared with the dense form in float32."""
    rehearsed, device = setting.rehearsed is not None, setting.device
    config, count = setting.config(256), 2 if rehearsed else BATCH
    maps = setting.maps(config, count)
    symbols_on_host = maps.symbols[np.arange(count) % len(maps.symbols)]
    planned = plan_levels(symbols_on_host.astype(np.uint16), config)
    # The trainer's data loader sorts the index of each level in the same way, outside the step.
    levels = {
        size: replace(level, order=by_entry(level.index, len(level.patches5)))
        for size, level in level_tensors(planned, device).items()
    }
    installed()  # raises if there are no kernels: the codebook form would silently run on PyTorch's operators
    symbols = torch.from_numpy(symbols_on_host).to(device)
    generator = seeded_generator(config).to(device).train()
    narrow = copy.deepcopy(generator).to(DTYPE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    clock = Clock(device, 1 if rehearsed else REPEATS)

    def step(model: Generator, ours: bool) -> None:
        model.zero_grad(set_to_none=True)
        image = (
            synthesize_codebook(model, None, symbols, levels, None) if ours else synthesize_dense(model, symbols, None)
        )
        torch.tanh(image).float().square().mean().backward()  # type: ignore[no-untyped-call]

    def gradient(model: Generator) -> Tensor:
        return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])

    step(generator, ours=False)
    exact = gradient(generator)
    rows: list[Report] = []
    for name, ours in (("spade bf16", True), ("dense eager bf16", False)):
        step(narrow, ours)
        cosine = torch.cosine_similarity(gradient(narrow), exact, dim=0)
        ms = clock.milliseconds(lambda ours=ours: step(narrow, ours))  # type: ignore[misc]
        rows.append({"form": name, "batch": count, "ms": ms, "cosine_to_float32": float(cosine)})
        setting.save({"rows": rows})
    return {"rows": rows}
