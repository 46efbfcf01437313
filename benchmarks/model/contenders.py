"""Our engines and their peers by name, and which of them this machine runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.model.sessions import KINDS
from export.openvino_core import openvino_core
from kernels.isa import IsaError
from serving.engines.cpu.engine import choose_isa_of

PEERS = ("torch-fp32", "torch-bf16", "onnxruntime", "openvino-fp32", "openvino-bf16", "tensorrt")
REFERENCE = "torch-fp32"
SESSIONS = tuple(f"cpu-{precision}-{kind}" for precision in ("fp32", "bf16") for kind in KINDS)
"""Drawings in a session of the cpu engine, one map at a time: see `benchmarks.model.sessions`."""
OURS = ("cpu-fp32", "cpu-bf16", "cpu-int8", "torch-codebook-fp32", "torch-codebook-bf16")

_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}


def describe(name: str) -> tuple[str, str, str]:
    """(engine, form, precision) of a row's name."""
    if name.startswith("torch-codebook"):
        return "torch", "codebook", name.rsplit("-", 1)[1]
    if name == "tensorrt":
        return "tensorrt", "as exported", "as exported"
    engine, _, precision = name.removesuffix(f"-{session_kind(name)}").partition("-")
    return engine, "codebook" if engine == "cpu" else "dense", precision or "fp32"


def session_kind(name: str) -> str:
    """The kind of drawing of a row of SESSIONS; empty for other rows."""
    return name.rsplit("-", 1)[1] if name in SESSIONS else ""


def lacking(names: tuple[str, ...], tensorrt: Path | None = None) -> dict[str, str]:
    """The engines and peers among `names` that this machine cannot run at speed, each with the reason.

    `tensorrt` is the engine file of the peer of that name.
    """
    found = {name: _why_not(*describe(name)) for name in names}
    if "tensorrt" in found and tensorrt is None:
        found["tensorrt"] = "expected --tensorrt with an engine file of `spade export --to tensorrt` but got none"
    return {name: why for name, why in found.items() if why}


def _why_not(engine: str, form: str, precision: str) -> str:
    """Why this machine cannot run an engine or peer at speed; empty if it can."""
    package = _PACKAGES.get(engine)
    if package is not None and find_spec(package) is None:
        return f"expected the package {package} but it is not installed"
    if engine == "cpu":
        try:
            choose_isa_of(precision)
        except IsaError as error:
            return str(error)
    if engine == "torch" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (
            f"expected a processor on which oneDNN multiplies in bf16 (AVX-512 or newer) but this one has "
            f"{torch.backends.cpu.get_cpu_capability()}, where PyTorch's bf16 convs take minutes ({form} form)"
        )
    if engine == "openvino" and precision == "bf16":
        capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:
            return (
                f"expected a processor with BF16 among OpenVINO's capabilities but got {', '.join(capabilities)}, "
                "where OpenVINO computes in float32 whatever precision it is asked for"
            )
    if engine == "tensorrt" and not torch.cuda.is_available():
        return "expected a CUDA GPU, which TensorRT needs to run an engine, but PyTorch sees none"
    return ""
