"""Instruction sets (ISAs) of the CPU kernels: which this processor runs, what each stores, and how one is chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, get_args

from kernels.layouts import DType
from kernels.native import native

ISA_VARIABLE = "SPADE_CPU_ISA"
"""The environment variable that forces an ISA."""

Isa = Literal["avx2", "avx512", "avx512bf16", "amx"]
Form = Literal["gathered", "per_tap"]
"""A form of the codebook kernel, see `kernels.ops.codebook.codebook`."""

# Of each ISA, T (plain maps and entries) and I (padded maps, hidden rows and weights, which products read).
_ISA_DTYPES: dict[Isa, tuple[DType, DType]] = {
    "avx2": ("float32", "float32"),
    "avx512": ("float32", "float32"),
    "avx512bf16": ("bf16", "bf16"),
    "amx": ("float16", "bf16"),
}


class IsaError(RuntimeError):
    """This processor has no ISA for a dtype, or does not run the ISA of a given name."""


def isa_number(isa: Isa) -> int:
    """Return the ISA's number in the C header, `spade_isa`."""
    return get_args(Isa).index(isa)


def supported_isas() -> list[Isa]:
    """Return the ISAs that this processor runs, slowest first."""
    return [isa for isa in get_args(Isa) if native.isa_supported(isa_number(isa))]


def isa_dtype(isa: Isa) -> DType:
    """Return T, the dtype of plain maps and entries."""
    return _ISA_DTYPES[isa][0]


def input_dtype(isa: Isa) -> DType:
    """Return I, the dtype of padded maps, hidden rows and weights, which products read."""
    return _ISA_DTYPES[isa][1]


def isa_forms(isa: Isa) -> tuple[Form, ...]:
    """Return the forms of the codebook kernel on this ISA. Two forms give the same bits."""
    return ("gathered",) if isa == "amx" else get_args(Form)


def choose_isa(dtype: DType, environment: Mapping[str, str] = os.environ) -> Isa:
    """Return the fastest ISA of this processor whose products read `dtype`, or the ISA that SPADE_CPU_ISA names.

    Raises IsaError.
    """
    fitting = [isa for isa in supported_isas() if input_dtype(isa) == dtype]
    forced = environment.get(ISA_VARIABLE)
    if forced:
        if forced not in fitting:
            raise IsaError(
                f"[cpu] expected {ISA_VARIABLE} to be an ISA of {dtype} on this processor, one of {fitting}, "
                f"but got {forced!r}; unset it or use another precision"
            )
        return fitting[fitting.index(forced)]
    if not fitting:
        raise IsaError(
            f"[cpu] expected a processor with AVX-512 and its bf16 (bf16) or AVX2 (float32) but this one has none "
            f"for {dtype}; use the torch engine"
        )
    return fitting[-1]
