"""The torch engine: the reference. Dense or codebook form, float32 or bf16, on CUDA fp16 too."""

from __future__ import annotations

import logging
import time
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kernels.cuda.host.library import CudaError, installed
from kernels.ops.plan import plan
from serving.engines.cuda.generator import CudaGenerator, CudaTimes
from serving.engines.timings import Timings
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.synthesize import CodebookSeconds, synthesize_codebook
from spade_core.config import GeneratorConfig, level_sizes
from spade_core.maps.label_maps import prepare
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.style import check_style
from spade_core.types import Images, Instances, Labels, Style

Precision = Literal["fp32", "bf16", "fp16"]
Form = Literal["codebook", "dense"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

log = logging.getLogger(__name__)


class TorchEngine:
    """Runs a generator in PyTorch.

    Args:
        generator: in eval mode; it is moved and converted in place.
        precision: fp32, bf16 or, on CUDA, fp16, of weights and activations. Image values leave in float32.
        form: codebook, or dense as the paper writes it.
        threads: of PyTorch's pool, which all engines of a process share; None leaves it.
    """

    name = "torch"

    def __init__(
        self,
        generator: Generator,
        precision: Precision = "fp32",
        form: Form = "codebook",
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        known = [name for name in _DTYPES if name != "fp16" or torch.device(device).type == "cuda"]
        if precision not in known:
            raise ValueError(f"[engine] expected precision {' or '.join(known)} but got {precision!r}")
        if form not in get_args(Form):
            raise ValueError(f"[engine] expected form {' or '.join(get_args(Form))} but got {form!r}")
        if threads is not None:
            if threads < 1:
                raise ValueError(f"[engine] expected threads of 1 or more but got {threads}")
            torch.set_num_threads(threads)
        self.config: GeneratorConfig = generator.config
        self.precision: str = precision
        self.form: Form = form
        self._device = torch.device(device)
        dtype = _DTYPES[precision]
        self._cuda = _cuda_generator(generator, dtype, self._device) if form == "codebook" else None
        self.max_concurrent_calls = 1 if self._cuda is None else 2
        if self._cuda is not None:
            return
        # Folding reads the float32 weights, so it comes before the conversion.
        self._folded = fold_generator(generator.to(self._device), dtype) if form == "codebook" else {}
        self._generator = generator.to(dtype=dtype)
        if form == "codebook":
            generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3]; see `serving.engines.contract.Engine`."""
        if self._cuda is not None:
            on_host: Images = self._run_cuda(self._cuda, labels, instances, style, timings, values=False).numpy()
            return on_host
        image = self.image(labels, instances, style, timings)
        # The published models truncate: 0.999 of a grey level is still 0.
        pixels = ((image + 1) * 127.5).clamp_(0, 255).to(torch.uint8)
        images: Images = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return images

    def image(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Tensor:
        """As `synthesize`, before rounding: float32 [N, 3, H, W] in -1..1."""
        if self._cuda is not None:
            return self._run_cuda(self._cuda, labels, instances, style, timings, values=True)
        timings = timings if timings is not None else Timings()
        began = time.perf_counter()
        symbols = prepare(labels, instances, self.config)  # [N, H, W]
        styles = check_style(style, labels.shape[0], self.config)
        with torch.inference_mode():
            z = None if styles is None else torch.from_numpy(styles).to(self._device)
            on_device = torch.from_numpy(symbols.astype(np.int32)).to(self._device)
            if self.form == "dense":
                out = torch.tanh(synthesize_dense(self._generator, on_device, z).float())
                timings.distinct_share = 1.0
                timings.convs_s += time.perf_counter() - began
                return out
            sizes = level_sizes(symbols.shape[1], symbols.shape[2], self.config.upsamplings)
            levels = plan(symbols, sizes, self.config.symbols, self.config.spade_kernel)
            tensors = level_tensors(levels, self._device)
            planned = time.perf_counter()
            seconds = CodebookSeconds()
            out = torch.tanh(synthesize_codebook(self._generator, self._folded, on_device, tensors, z, seconds).float())
        timings.plan_s += planned - began
        timings.codebook_s += seconds.total
        timings.convs_s += time.perf_counter() - planned - seconds.total
        timings.distinct_share = sum(len(level.patches5) for level in levels) / sum(
            level.index.size for level in levels
        )
        return out

    def _run_cuda(
        self,
        cuda: CudaGenerator,
        labels: Labels,
        instances: Instances | None,
        style: Style | None,
        timings: Timings | None,
        *,
        values: bool,
    ) -> Tensor:
        symbols = prepare(labels, instances, self.config)  # [N, H, W]
        styles = check_style(style, labels.shape[0], self.config)
        times = CudaTimes() if timings is not None else None
        out = cuda.run(symbols, styles, values=values, times=times)
        if timings is not None and times is not None:
            timings.plan_s += times.plan_s
            timings.codebook_s += times.codebook_s
            timings.convs_s += times.convs_s
            timings.distinct_share = times.rows / times.pixels
            timings.cached_maps += times.cached
        return out


def _cuda_generator(generator: Generator, dtype: torch.dtype, device: torch.device) -> CudaGenerator | None:
    """The program on our CUDA kernels; None on the CPU, and where they were not built, which the log says."""
    if device.type != "cuda":
        return None
    try:
        library = installed()
    except CudaError as error:
        log.warning("the torch engine runs on PyTorch's operators alone: %s", error)
        return None
    return CudaGenerator(generator, dtype, device, library)
