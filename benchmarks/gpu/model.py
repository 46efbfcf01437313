"""The whole generator on a GPU, from host to host, beside the dense form in PyTorch with the same weights and maps."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.maps import Maps
from benchmarks.gpu.setting import Report, Setting
from kernels.cuda.host.library import installed
from serving.engines.cuda.generator import CudaGenerator
from serving.engines.cuda.recorder import autotuned
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.types import Symbols

BATCHES = (8, 1, 32)  # 8 first, since errors are taken there
WARM_UPS, REPEATS = 3, 15

Run = Callable[[Symbols], Tensor]
"""Symbols [N, H, W] on the host -> pixels uint8 [N, H, W, 3] on the host."""
Contender = tuple[str, Callable[[], Run]]


class Dense:
    """The dense form on PyTorch's operators, channels last, in float16; in a rehearsal in float32 on the CPU.

    `kind` is "graph" (a CUDA graph; on the CPU eager) or "compiled" (on the CPU without its compiler).
    """

    def __init__(self, generator: Generator, kind: str, device: torch.device) -> None:
        self._device, self._on_cuda = device, device.type == "cuda"
        self._generator = copy.deepcopy(generator).to(device, torch.float16 if self._on_cuda else torch.float32)
        self._generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recorded = kind == "graph" and self._on_cuda
        self._step: Callable[[Tensor], Tensor] = self._pixels
        if kind == "compiled" and self._on_cuda:
            self._step = torch.compile(self._pixels, mode="max-autotune", dynamic=False)
        elif kind == "compiled":
            self._step = torch.compile(self._pixels, backend="eager", dynamic=False)
        self._graphs: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, symbols: Symbols) -> Tensor:
        on_device = torch.from_numpy(symbols.astype(np.int32))
        if self._on_cuda:
            on_device = on_device.pin_memory().cuda(non_blocking=True)
        if not self._recorded:
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
        with autotuned():
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


def contenders(generator: Generator, device: torch.device) -> Iterator[Contender]:
    """Names of the engines, and functions that make them. Ours has no cache, so every map counts as new."""
    yield "spade fp16", lambda: _ours(generator, device)
    yield "dense channels-last + CUDA graph fp16", lambda: Dense(generator, "graph", device)


def compiled(generator: Generator, device: torch.device) -> Iterator[Contender]:
    """The dense form through `torch.compile`, which takes a minute for each batch size."""
    yield "dense torch.compile fp16", lambda: Dense(generator, "compiled", device)


def _ours(generator: Generator, device: torch.device) -> Run:
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    engine = CudaGenerator(generator, dtype, device, installed(), cache_bytes=0)
    return lambda symbols: engine.run(symbols, None, values=False)


def seconds(run: Run, batches: list[Symbols], repeats: int = REPEATS) -> list[float]:
    """The seconds of each call, going through the batches in turn."""
    for symbols in batches[: min(WARM_UPS, repeats)]:
        run(symbols)
    times = []
    for i in range(repeats):
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
    """Ours and the recorded dense form at every batch size; see `_measure`."""
    return _measure(setting, contenders, BATCHES if setting.rehearsed is None else (1,))


def compile(setting: Setting) -> Report:
    """`torch.compile` at batch 8; see `_measure`."""
    return _measure(setting, compiled, BATCHES[:1] if setting.rehearsed is None else (1,))


def _measure(
    setting: Setting, engines: Callable[[Generator, torch.device], Iterator[Contender]], sizes: Sequence[int]
) -> Report:
    """One row for each engine and batch size. Errors are against the dense form in float32, in grey levels of 255."""
    config = setting.config(256)
    maps = setting.maps(config, 8 if setting.rehearsed is None else 1)
    generator = seeded_generator(config)
    rows: list[Report] = []
    left_out: list[str] = []
    report: Report = {"rows": rows, "out_of_time": left_out}
    first = batches_of(maps, sizes[0])[0]
    exact = _exact(generator, first, setting.device)
    for name, make in engines(generator, setting.device):
        run: Run | None = None
        for size in sizes:
            if setting.time_is_up:
                left_out.append(f"{name} batch {size}")
                continue
            run = run or make()
            batches = batches_of(maps, size)
            times = seconds(run, batches, REPEATS if setting.rehearsed is None else 1)
            error = run(first).float() - exact if size == sizes[0] else None
            rows.append(_row(name, size, times, error))
            setting.save(report)
        del run
        if setting.rehearsed is None:
            torch.cuda.empty_cache()
    return report


def _exact(generator: Generator, symbols: Symbols, device: torch.device) -> Tensor:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode():
            reference = copy.deepcopy(generator).to(device)
            on_device = torch.from_numpy(symbols.astype(np.int32)).to(device)
            image = torch.tanh(synthesize_dense(reference, on_device, None))
            return ((image + 1) * 127.5).permute(0, 2, 3, 1).cpu()
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _row(name: str, batch: int, times: list[float], error: Tensor | None) -> Report:
    median = statistics.median(times)
    row: Report = {
        "engine": name, "batch": batch, "seconds_median": median, "seconds_min": min(times),
        "images_per_s": batch / median,
    }  # fmt: skip
    if error is not None:
        row["max_error"] = float(error.abs().max())
        row["psnr_db"] = float(10 * torch.log10(255**2 / error.square().mean().clamp(min=1e-12)))
    return row
