"""Instruction sets of the CPU kernels: which this processor has, what each stores, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, get_args

from kernels.layouts import DType
from kernels.native import native

ISA_VARIABLE = "SPADE_CPU_ISA"
Isa = Literal["avx2", "avx512", "avx512bf16", "amx"]
Form = Literal["gathered", "per_tap"]
# What plain maps and entries are stored as, and what products read.
_ISA_DTYPES: dict[Isa, tuple[DType, DType]] = {
    "avx2": ("float32", "float32"),
    "avx512": ("float32", "float32"),
    "avx512bf16": ("bf16", "bf16"),
    "amx": ("float16", "bf16"),
}


class IsaError(RuntimeError):
    """No isa for this dtype on this processor, or none by that name."""


def supported_isas() -> list[Isa]:
    """The isas that this processor runs, slowest first."""
    return [isa for number, isa in enumerate(get_args(Isa)) if native.isa_supported(number)]


def isa_dtype(isa: Isa) -> DType:
    """T: what plain maps and entries are stored as in a isa."""
    return _ISA_DTYPES[isa][0]


def input_dtype(isa: Isa) -> DType:
    """I: what products read in a isa, so what padded maps and hidden rows are stored as."""
    return _ISA_DTYPES[isa][1]


def isa_forms(isa: Isa) -> tuple[Form, ...]:
    """The forms of the codebook that a isa has; where there are two, they give the same bits."""
    return ("gathered",) if isa == "amx" else get_args(Form)


def choose_isa(dtype: DType, environment: Mapping[str, str] = os.environ) -> Isa:
    """The fastest isa on this processor whose products read `dtype`; SPADE_CPU_ISA forces one. Raises IsaError."""
    fitting = [isa for isa in supported_isas() if input_dtype(isa) == dtype]
    forced = environment.get(ISA_VARIABLE)
    if forced:
        if forced not in fitting:
            raise IsaError(
                f"[cpu] expected {ISA_VARIABLE} to be a isa of {dtype} on this processor, one of {fitting}, "
                f"but got {forced!r}; unset it or use another precision"
            )
        return fitting[fitting.index(forced)]
    if not fitting:
        raise IsaError(
            f"[cpu] expected a processor with AVX-512 and its bf16 (bf16) or AVX2 (float32) but this one has none "
            f"for {dtype}; use the torch engine"
        )
    return fitting[-1]
