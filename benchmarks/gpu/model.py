"""The whole generator on a GPU, from host to host, beside the dense form in PyTorch with the same weights and maps."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.maps import Maps, read_maps
from benchmarks.gpu.setting import Report, Setting
from kernels.cuda.host.library import installed
from serving.engines.cuda.generator import CudaGenerator
from spade_core.config import preset
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.types import Symbols

BATCHES = (1, 8, 32)
WARM_UPS, REPEATS = 3, 15

Run = Callable[[Symbols], Tensor]
"""Symbols [N, H, W] on the host -> pixels uint8 [N, H, W, 3] on the host."""


class Dense:
    """The dense form in float16 on PyTorch's operators. `kind` is "eager", "graph" (a CUDA graph) or "compiled"."""

    def __init__(self, generator: Generator, kind: str) -> None:
        self._generator = copy.deepcopy(generator).cuda().half()
        if kind != "eager":
            self._generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._kind = kind
        self._step: Callable[[Tensor], Tensor] = self._pixels
        if kind == "compiled":
            self._step = torch.compile(self._pixels, mode="max-autotune", dynamic=False)
        self._graphs: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, symbols: Symbols) -> Tensor:
        on_device = torch.from_numpy(symbols.astype(np.int32)).pin_memory().cuda(non_blocking=True)
        if self._kind != "graph":
            return self._step(on_device).cpu()
        if on_device.shape not in self._graphs:
            self._graphs[on_device.shape] = self._capture(on_device)
        graph, given, pixels = self._graphs[on_device.shape]
        given.copy_(on_device)
        graph.replay()
        return pixels.cpu()

    def _pixels(self, symbols: Tensor) -> Tensor:
        image = torch.tanh(synthesize_dense(self._generator, symbols, None).float())
        return ((image + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _capture(self, symbols: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = symbols.clone()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._pixels(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                pixels = self._pixels(given)
        return graph, given, pixels


def contenders(generator: Generator) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Names of the engines, and functions that make them. Ours have no cache, so every map counts as new."""
    for name, dtype in (("spade fp16", torch.float16), ("spade bf16", torch.bfloat16)):
        yield name, lambda dtype=dtype: _ours(generator, dtype)  # type: ignore[misc]
    for name, kind in (
        ("eager fp16", "eager"),
        ("channels-last + CUDA graph fp16", "graph"),
        ("torch.compile fp16", "compiled"),
    ):
        yield name, lambda kind=kind: Dense(generator, kind)  # type: ignore[misc]


def _ours(generator: Generator, dtype: torch.dtype) -> Run:
    engine = CudaGenerator(generator, dtype, torch.device("cuda"), installed(), cache_bytes=0)
    return lambda symbols: engine.run(symbols, None, values=False)


def seconds(run: Run, batches: list[Symbols]) -> list[float]:
    """The seconds of each call, going through the batches in turn."""
    for symbols in batches[:WARM_UPS]:
        run(symbols)
    times = []
    for i in range(REPEATS):
        began = time.perf_counter()
        run(batches[i % len(batches)])
        times.append(time.perf_counter() - began)
    return times


def batches_of(maps: Maps, size: int) -> list[Symbols]:
    """Batches of the maps, shifted by more and more columns, so that no two batches share a map."""
    symbols = maps.symbols.astype(np.uint16)
    whole = [np.roll(symbols, shift, axis=2) for shift in range(-(-size * WARM_UPS // len(symbols)))]
    every = np.concatenate(whole)
    return [every[i : i + size] for i in range(0, len(every) - size + 1, size)]


def model(setting: Setting) -> Report:
    """One row for each engine and batch size. Errors are against the dense form in float32, in grey levels of 255."""
    config = preset("coco")
    maps = read_maps(config, setting.labels)
    if setting.dry_run:
        return {"would_time": [name for name, _ in contenders(seeded_generator(preset("demo")))], "batches": BATCHES,
                "shapes": [list(batches_of(maps, size)[0].shape) for size in BATCHES]}  # fmt: skip
    generator = seeded_generator(config)
    rows: list[Report] = []
    left_out = []
    exact = _exact(generator, batches_of(maps, 8)[0])
    for name, make in contenders(generator):
        run: Run | None = None
        for size in sorted(BATCHES, key=lambda size: size != 8):  # batch 8 first, since errors are taken there
            if time.monotonic() > setting.ends:
                left_out.append(f"{name} batch {size}")
                continue
            run = run or make()
            batches = batches_of(maps, size)
            times = seconds(run, batches)
            error = run(batches_of(maps, 8)[0]).float() - exact if size == 8 else None
            rows.append(_row(name, size, times, error))
            setting.save({"rows": rows, "out_of_time": left_out})
        del run
        torch.cuda.empty_cache()
    return {"rows": rows, "out_of_time": left_out}


def _exact(generator: Generator, symbols: Symbols) -> Tensor:
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        reference = copy.deepcopy(generator).cuda()
        image = torch.tanh(synthesize_dense(reference, torch.from_numpy(symbols.astype(np.int32)).cuda(), None))
        return ((image + 1) * 127.5).permute(0, 2, 3, 1).cpu()


def _row(name: str, batch: int, times: list[float], error: Tensor | None) -> Report:
    median = statistics.median(times)
    row: Report = {
        "engine": name, "batch": batch, "seconds_median": median, "seconds_min": min(times),
        "images_per_s": batch / median,
    }  # fmt: skip
    if error is not None:
        row["max_error"] = float(error.abs().max())
        row["psnr_db"] = float(10 * torch.log10(255**2 / error.square().mean()))
    return row
