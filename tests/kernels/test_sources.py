"""Kernel sources see pointers, sizes and strides only: no Python and no PyTorch below the binding."""

from __future__ import annotations

import re
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


def test_only_the_binding_knows_python() -> None:
    sources = [p for p in KERNELS.rglob("*") if p.suffix in (".cpp", ".hpp", ".h", ".cu")]
    foreign = re.compile(r"nanobind|pybind|Python\.h|torch|ATen|c10")
    knowing = {p.name for p in sources if foreign.search(p.read_text())}
    assert len(sources) > 10
    assert knowing == {"binding.cpp"}


def test_kernels_know_neither_models_nor_servers() -> None:
    foreign = re.compile(r"^\s*(from|import) (spade_core|export|trainer|serving|benchmarks|torch)\b", re.MULTILINE)
    files = [*KERNELS.glob("*.py"), *KERNELS.glob("ops/*.py")]
    assert len(files) > 10
    assert {p.name for p in files if foreign.search(p.read_text())} == set()
