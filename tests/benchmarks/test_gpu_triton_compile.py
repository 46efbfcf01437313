"""Triton compiles every peer for sm_90, in every configuration, to fast code; compiling needs no GPU.

These tests cannot show which configuration is fastest, how often the L1 cache holds an index, or whether the hardware
keeps the order of stores, barrier and atomic addition.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.gpu import triton_kernels as kernels
from benchmarks.gpu.triton_peers import FUSED
from kernels.constants import HIDDEN

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
PIXELS = 256 * 256

each_dtype = pytest.mark.parametrize("dtype", list(BYTES))
each_width = pytest.mark.parametrize("channels", [64, 256])


@dataclass(frozen=True)
class Compiled:
    """The PTX of a kernel, and the registers and stack that cuobjdump reports."""

    ptx: str
    usage: str

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.ptx))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def compiled(kernel: Any, config: Any, kinds: dict[str, str], folder: Path, **constants: int) -> Compiled:
    """A kernel compiled as the launcher compiles it, with pointers and sizes that are multiples of 16."""
    names, constants = kernel.fn.arg_names, constants | config.kwargs
    known = [name for name, kind in kinds.items() if kind.startswith("*") or name in ("pixels", "stride")]
    source = ASTSource(
        kernel.fn, {name: kinds.get(name, "constexpr") for name in names}, constants,
        {(names.index(name),): [["tt.divisibility", 16]] for name in known},
    )  # fmt: skip
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages, **FUSED}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    done = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True)
    return Compiled(made.asm["ptx"], done.stdout)


def vectors(config: Any, dtype: str) -> int:
    """The vectors of 16 bytes that a thread has of a tile."""
    return int(config.kwargs["TILE"]) * BYTES[dtype] // (16 * 32 * config.num_warps)


def configurations(kernel: Any, **constants: int) -> list[Any]:
    """The configurations that the tuner tries."""
    prune = kernel.early_config_prune
    return list(prune(kernel.configs, {}, **constants) if prune else kernel.configs)


def expect_rounded(found: Compiled, dtype: str) -> None:
    """Assert that results are rounded to nearest; the interpreter truncates bfloat16, so it cannot show this."""
    assert found.count(r"cvt\.rn\.(bf|f)16x2\.f32") > 0 or dtype == "fp32"


def expect_no_spills(found: Compiled) -> None:
    assert re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", found.usage), found.usage


@each_dtype
@each_width
def test_dense(dtype: str, channels: int, tmp_path: Path) -> None:
    maps, statistics = (
        dict.fromkeys(("x", "gamma", "beta", "out"), f"*{dtype}"),
        dict.fromkeys(("mean", "rstd"), "*fp32"),
    )
    kinds = maps | statistics | {"pixels": "i32", "stride": "i32"}
    for config in configurations(kernels.modulate_dense):
        found = compiled(kernels.modulate_dense, config, kinds, tmp_path, CHANNELS=channels, WIDTH=64)
        assert found.count(r"ld\.global\.L1::evict_first\S*\.v4\.b32") == 3 * vectors(config, dtype)
        assert found.count(r"st\.global\.v4\.b32") == found.count(r"st\.global") == vectors(config, dtype)
        assert found.count(r"ld\.global") == found.count(r"ld\.global\S*\.v4\.b32")
        assert found.count(r"bar\.sync|ld\.shared") == 0  # statistics come in the layout of the maps
        expect_rounded(found, dtype)
        expect_no_spills(found)


@each_dtype
@each_width
def test_statistics(dtype: str, channels: int, tmp_path: Path) -> None:
    kinds = {"x": f"*{dtype}", "ended": "*i32", "epsilon": "fp32"} | dict.fromkeys(("parts", "mean", "rstd"), "*fp32")
    for config in configurations(kernels.instance_statistics):
        found = compiled(
            kernels.instance_statistics, config, kinds, tmp_path, PIXELS=PIXELS, CHANNELS=channels, WIDTH=64, SPLITS=64
        )
        before, publication, after = found.ptx.partition("atom.global.gpu.acq_rel.add")
        assert publication
        assert len(re.findall(r"ld\.global\.v4\.b32", before)) >= vectors(config, dtype)
        assert re.search(r"st\.global(?!.*st\.global).*bar\.sync", before, re.DOTALL)  # the sums, then the barrier
        assert "ld.global.cg.v4.b32" in after
        assert not re.search(r"ld\.global(?!\.cg)", after)
        expect_no_spills(found)


@each_dtype
@each_width
@pytest.mark.parametrize("shift", [0, 1])
def test_codebook_modulation(dtype: str, channels: int, shift: int, tmp_path: Path) -> None:
    kinds = dict.fromkeys(("x", "entries", "out"), f"*{dtype}") | {"index": "*i32", "pixels": "i32"}
    for config in configurations(kernels.modulate_codebook, SHIFT=shift):
        found = compiled(
            kernels.modulate_codebook, config, kinds, tmp_path, COLUMNS=128, SHIFT=shift, CHANNELS=channels,
            WIDTH=channels,
        )  # fmt: skip
        each, over = vectors(config, dtype), 4 if shift else 1
        assert found.count(r"ld\.global\.L1::evict_first\S*\.v4\.b32") == each  # x, once
        assert found.count(r"ld\.global\.v4\.b32") == 2 * over * each  # a and b
        assert found.count(r"st\.global\.v4\.b32") == found.count(r"st\.global") == over * each
        assert "ld.global" not in found.ptx.partition("st.global")[2]
        expect_rounded(found, dtype)
        expect_no_spills(found)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_codebook_product(dtype: str, tmp_path: Path) -> None:
    maps = dict.fromkeys(("actv", "weight", "entries"), f"*{dtype}")
    kinds = maps | {"patches": "*i32", "bias": "*fp32", "rows": "i32"}
    kind = dtype.removesuffix("16") + "16"
    for config in configurations(kernels.codebook_product):
        found = compiled(
            kernels.codebook_product, config, kinds, tmp_path, COLUMNS=128, TAPS=9, HIDDEN=HIDDEN
        )  # fmt: skip
        assert found.count(rf"wgmma\.mma_async\.sync\.aligned\.m64n128k16\.f32\.{kind.replace('fp', 'f')}") >= 4
        # Rows and weights are copied to shared memory 16 bytes at a time, the indices before them 4 bytes at a time.
        assert found.count(r"cp\.async\.cg\.shared\.global [^;]*, 0x10,") >= 8
        assert found.count(r"cp\.async\.ca\.shared\.global [^;]*, 0x4,") >= 2
        assert found.count(r"ld\.global\S*\.b16|st\.shared\S*\.b16") == 0
        expect_rounded(found, dtype)
        expect_no_spills(found)
