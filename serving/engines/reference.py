"""The torch engine: the dense form, the codebook form in PyTorch, and on CUDA the codebook form on our kernels."""

from __future__ import annotations

import functools
import logging
import time
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kernels.cuda.host.library import CudaError, installed
from serving.engines.contract import Engine, Inputs, Session, check_inputs
from serving.engines.cuda.generator import CudaGenerator
from serving.engines.cuda.lost import watched
from serving.engines.kept import SESSION_BYTES, KeptSession
from serving.engines.timings import Timings
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.plans import distinct_share, plan_levels
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import GeneratorConfig
from spade_core.models.dense import synthesize_dense
from spade_core.models.form import AnyGenerator
from spade_core.models.generator import Generator
from spade_core.types import Images, Instances, Labels, Style

Precision = Literal["fp32", "bf16", "fp16"]
Form = Literal["codebook", "dense"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

log = logging.getLogger(__name__)


class TorchEngine(Engine):
    """Runs a generator in PyTorch.

    Args:
        generator: in eval mode. The engine moves and converts the generator in place.
        precision: dtype of weights and activations: fp32, bf16 or, on CUDA, fp16. Image values are float32.
        form: `codebook`, or `dense` as the paper writes it.
        device: `cpu` or `cuda`.
        threads: threads of PyTorch's pool, which all engines of a process share; None leaves the pool as it is.
        session_bytes: memory of a GPU for the maps between the convs of sessions; see `CpuEngine`. 0 keeps none.
    """

    name = "torch"

    def __init__(
        self,
        generator: AnyGenerator,
        precision: Precision = "fp32",
        form: Form = "codebook",
        device: str = "cpu",
        threads: int | None = None,
        session_bytes: int = SESSION_BYTES,
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
        on_cuda = self._device.type == "cuda"
        self._synchronize = functools.partial(torch.cuda.synchronize, self._device) if on_cuda else None
        dtype = _DTYPES[precision]
        self._cuda = _cuda_generator(generator, dtype, self._device) if form == "codebook" else None
        self.max_concurrent_calls = 1 if self._cuda is None else 2
        if self._cuda is not None:
            self._kept = self._cuda.kept_maps(session_bytes, functools.partial(watched, self._synchronize))
            return
        # fold_generator reads the float32 weights, so it runs before the conversion.
        self._folded = fold_generator(generator.to(self._device), dtype) if form == "codebook" else {}
        self._generator = generator.to(device=self._device, dtype=dtype)
        if form == "codebook":
            generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        """Checked inputs -> images [N, H, W, 3]; see `Engine.run`. Raises DeviceLostError when the GPU is lost."""
        with watched(self._synchronize):
            return self._run(inputs, timings)

    def session(self) -> Session:
        """On our kernels, a session that redraws what changed; elsewhere a plain one."""
        return Session(self) if self._cuda is None else KeptSession(self, self._kept)

    def _run(self, inputs: Inputs, timings: Timings | None) -> Images:
        images: Images
        if self._cuda is not None:
            images = self._cuda.run(inputs.symbols, inputs.style, values=False, timings=timings).numpy()
            return images
        values = self._values(inputs, timings or Timings())
        # Truncate, as the published models do: 0.999 of a grey level is still 0.
        pixels = ((values + 1) * 127.5).clamp_(0, 255).to(torch.uint8)
        images = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return images

    def image(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Tensor:
        """The values that `synthesize` rounds to pixels: float32 [N, 3, H, W] in -1..1."""
        inputs = check_inputs(labels, instances, style, self.config)
        if self._cuda is not None:
            return self._cuda.run(inputs.symbols, inputs.style, values=True, timings=timings)
        return self._values(inputs, timings or Timings())

    @torch.inference_mode()
    def _values(self, inputs: Inputs, timings: Timings) -> Tensor:
        began = time.perf_counter()
        symbols = torch.from_numpy(inputs.symbols.astype(np.int32)).to(self._device)
        z = None if inputs.style is None else torch.from_numpy(inputs.style).to(self._device)
        if self.form == "dense":
            values = torch.tanh(synthesize_dense(self._generator, symbols, z).float())
            timings.distinct_share = 1.0
            timings.convs_s += time.perf_counter() - began
            return values
        levels = plan_levels(inputs.symbols, self.config)
        tensors = level_tensors(levels, self._device)
        planned = time.perf_counter()
        codebooks: list[float] = []  # seconds of each norm's codebook
        out = synthesize_codebook(self._generator, self._folded, symbols, tensors, z, codebooks.append)
        values = torch.tanh(out.float())
        timings.plan_s += planned - began
        timings.codebook_s += sum(codebooks)
        timings.convs_s += time.perf_counter() - planned - sum(codebooks)
        timings.distinct_share = distinct_share(levels)
        return values


def _cuda_generator(generator: AnyGenerator, dtype: torch.dtype, device: torch.device) -> CudaGenerator | None:
    """The generator on our CUDA kernels; None on the CPU, and None with a warning where the kernels are not built."""
    if device.type != "cuda" or not isinstance(generator, Generator):
        return None
    try:
        library = installed()
    except CudaError as error:
        log.warning("the torch engine runs on PyTorch's operators alone: %s", error)
        return None
    return CudaGenerator(generator, dtype, device, library)
