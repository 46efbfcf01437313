"""The precision that a training computes in on this machine: as asked for, or the fastest within the error bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from kernels.isa import input_dtype, supported_isas
from trainer.config import Precision


@dataclass(frozen=True)
class PrecisionChoice:
    """What a training computes in.

    Attributes:
        precision: `fp32` or `bf16`.
        reason: why.
        warning: why the precision is slow here, and which one is fast; empty for a fast one.
    """

    precision: str
    reason: str
    warning: str = ""

    def __str__(self) -> str:
        return f"training in {self.precision}: {self.reason}"


def choose_precision(asked: Precision, device: str) -> PrecisionChoice:
    """The precision for `run.precision` on the device `cpu` or `cuda`.

    `auto` is bf16 where the device multiplies in bf16, else fp32. docs/training.md has the error of bf16 gradients.
    """
    fast = _multiplies_bf16(device)
    where = "this GPU" if device == "cuda" else "this processor"
    has = f"{where} multiplies in bf16" if fast else f"{where} does not multiply in bf16"
    if asked == "auto":
        return PrecisionChoice("bf16" if fast else "fp32", has)
    slow = asked == "bf16" and not fast
    warning = f"bf16 is many times slower than fp32 here, since {has}; take run.precision fp32 or auto" if slow else ""
    return PrecisionChoice(asked, "asked for by name", warning)


@cache
def _multiplies_bf16(device: str) -> bool:
    """Whether bf16 convs run at speed. PyTorch says yes to AVX-512 without bf16, which emulates the products."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ours = any(input_dtype(isa) == "bf16" for isa in supported_isas())
    return ours and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
