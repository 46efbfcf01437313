"""Images stay the same, bit for bit, when code moves: a hash of every engine's images in every precision.

Hashes of the cpu engine are keyed by its isa. Hashes of PyTorch's operators also depend on the processor and on the
version of PyTorch, so their keys hold both. A key without a recorded hash is skipped: run
`python tests/serving/test_image_hashes.py` to record the hashes of this machine in image_hashes.json, after a change
that is meant to change bits, and say so in the commit. The hashes of isa amx were recorded on the emulator, by
`python tests/kernels/amx_emulated.py tests/serving/test_image_hashes.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from kernels.cuda.host.library import Library
from kernels.isa import ISA_VARIABLE, input_dtype, supported_isas
from serving.engines.cpu.engine import CpuEngine
from serving.engines.cuda.generator import CudaGenerator
from serving.engines.reference import TorchEngine
from spade_core.config import DEMO_WEIGHTS, preset
from spade_core.files.checkpoints import load
from spade_core.maps.drawn import demo_map
from spade_core.maps.label_maps import prepare
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed
from tests.kernels.cuda_emulated import compile_emulated, emulated

__all__ = ["emulated"]

RECORDED = Path(__file__).with_name("image_hashes.json")
MODELS = ("demo", "coco", "instance")
TORCH_FORMS = ("codebook-fp32", "codebook-bf16", "dense-fp32", "dense-bf16")

Pixels = npt.NDArray[np.uint8]
Inputs = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None, npt.NDArray[np.float32] | None]


def generator_of(model: str) -> Generator:
    """demo: the trained model that ships. coco: edges and don't care, seeded. instance: instance norm, 5x5 convs."""
    if model == "demo":
        return load(DEMO_WEIGHTS).generator
    small = replace(preset("coco"), nf=8, height=64, width=64)
    return seeded_generator(small if model == "coco" else replace(small, norm="instance", spade_kernel=5))


def inputs_of(generator: Generator) -> Inputs:
    """Eight drawn maps at the generator's size."""
    config = generator.config
    maps = [demo_map(seed, config) for seed in range(8)]
    instances = np.stack([one for _, one in maps]) if config.instance_edges else None
    style = np.stack([style_from_seed(seed) for seed in range(8)]) if config.style else None
    return np.stack([one for one, _ in maps]), instances, style


def sha256(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def torch_key() -> str:
    """What the bits of PyTorch's operators depend on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vendor = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("vendor_id")), "unknown")
    return f"{vendor} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__.split('+')[0]}"


def cpu_key(model: str, isa: str, precision: str) -> str:
    return f"{model} cpu-{precision} {isa}"


def cpu_images(model: str, isa: str, precision: str) -> Pixels:
    """Images of the cpu engine. The caller has set SPADE_CPU_ISA."""
    generator = generator_of(model)
    engine = CpuEngine(generator, precision, 2)
    assert engine.isa == isa
    return engine.synthesize(*inputs_of(generator))


def torch_images(model: str, form: str) -> Pixels:
    generator = generator_of(model)
    kind, precision = form.split("-")
    engine = TorchEngine(generator, precision, kind, threads=1)  # type: ignore[arg-type]
    return engine.synthesize(*inputs_of(generator))


def cuda_images(library: Library, dtype: torch.dtype) -> Pixels:
    """Images of the CUDA program, its kernels run by the emulator: two maps of the smallest model."""
    generator = seeded_generator(replace(preset("coco"), nf=2, height=32, width=32))
    labels, instances, _ = inputs_of(generator)
    symbols = prepare(labels[:2], None if instances is None else instances[:2], generator.config)
    torch.set_num_threads(1)
    pixels: Pixels = (
        CudaGenerator(generator, dtype, torch.device("cpu"), library).run(symbols, None, values=False).numpy()
    )
    return pixels


def cpu_cases() -> list[tuple[str, str]]:
    """(isa, precision) of every isa of this processor."""
    cases = [(isa, "fp32" if input_dtype(isa) == "float32" else "bf16") for isa in supported_isas()]
    return [*cases, ("amx", "int8")] if ("amx", "bf16") in cases else cases


def expect_recorded(key: str, images: Callable[[], Pixels]) -> None:
    recorded = json.loads(RECORDED.read_text())
    if key not in recorded:
        pytest.skip(f"no hash of {key!r} was recorded")
    assert sha256(images()) == recorded[key], f"the images of {key} are not those that were recorded"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("isa", "precision"), cpu_cases())
def test_of_the_cpu_engine(model: str, isa: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    expect_recorded(cpu_key(model, isa, precision), lambda: cpu_images(model, isa, precision))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_of_the_torch_engine(model: str, form: str) -> None:
    expect_recorded(f"{model} torch-{form} {torch_key()}", lambda: torch_images(model, form))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_the_cuda_program(dtype: torch.dtype, emulated: Library) -> None:
    expect_recorded(f"cuda {dtype} {torch_key()}", lambda: cuda_images(emulated, dtype))


def record() -> Iterator[tuple[str, str]]:
    """Key and hash of all images of this machine."""
    for isa, precision in cpu_cases():
        os.environ[ISA_VARIABLE] = isa
        for model in MODELS:
            yield cpu_key(model, isa, precision), sha256(cpu_images(model, isa, precision))
    # Without AVX-512, products of PyTorch in bf16 take minutes.
    kinds = ("fp32",) if torch.backends.cpu.get_cpu_capability() == "AVX2" else ("fp32", "bf16")
    for form in TORCH_FORMS:
        for model in MODELS if form.endswith(kinds) else ():
            yield f"{model} torch-{form} {torch_key()}", sha256(torch_images(model, form))
    with tempfile.TemporaryDirectory() as folder:
        compile_emulated(Path(folder, "emulated.so"))
        library = Library(Path(folder, "emulated.so"), device="cpu")
        for dtype in (torch.float32, torch.bfloat16)[: len(kinds)]:
            yield f"cuda {dtype} {torch_key()}", sha256(cuda_images(library, dtype))


if __name__ == "__main__":
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for recorded_key, recorded_hash in record():
        known[recorded_key] = recorded_hash
        RECORDED.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(f"{recorded_key}: {recorded_hash}", flush=True)
