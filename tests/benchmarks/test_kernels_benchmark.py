"""The kernel benchmark times only kernels that agree with their peers, and its file has the agreed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import benchmarks.cpu_kernels.run
import benchmarks.cpu_kernels.timing
from benchmarks.cpu_kernels.codebooks import codebook_case, embed_case, plan_case
from benchmarks.cpu_kernels.command import kernels as main
from benchmarks.cpu_kernels.convs import conv_case
from benchmarks.cpu_kernels.run import Shapes, median_map
from benchmarks.cpu_kernels.timing import check, measure, rounding
from kernels.isa import Isa, isa_forms, supported_isas
from kernels.ops.plan import plan
from kernels.program import Pool
from spade_core.config import preset

pytestmark = pytest.mark.skipif(not supported_isas(), reason="no isa runs on this processor")

CONFIG = replace(preset("coco"), height=32, width=32)
SHAPES = Shapes(CONFIG, ((40, 48, 6, 3), (32, 3, 8, 3), (40, 32, 8, 1)), ((40, 5, 0), (64, 4, 1)))


def modulations(isa: Isa) -> list[str]:
    forms = [f"codebook {form.replace('_', ' ')}" for form in isa_forms(isa)]
    int8 = ["codebook int8"] if isa == "amx" else []
    return ["embed", *forms, *int8, "modulate", "norm"]


def symbols(seed: int = 0, classes: int = 3) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, classes, (1, 32, 32)).astype(np.uint16)


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(benchmarks.cpu_kernels.run, "COCO", SHAPES)
    for name, small in (("PEAK_OPERATIONS", 10**5), ("MEMORY_BYTES", 1 << 16), ("PAUSE_S", 0)):
        monkeypatch.setattr(benchmarks.cpu_kernels.timing, name, small)
    out = tmp_path / "new" / "kernels.json"
    done = CliRunner().invoke(main, ["--repeats", "2", "--no-compiled", "--json", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    read: dict[str, Any] = json.loads(out.read_text())
    return read


def test_every_kernel_has_its_rows_in_every_isa(report: dict[str, Any]) -> None:
    expected = [("plan", "any")]
    for isa in supported_isas():
        kernels = ["conv 3x3", "conv 3x3", "conv 1x1", *modulations(isa), *modulations(isa), "image"]
        expected += [(kernel, isa) for kernel in kernels]
    assert [(row["kernel"], row["isa"]) for row in report["rows"]] == expected
    assert list(report["context"]["peak_gflop_per_s_per_core"]) == supported_isas()
    assert set(report["context"]["copy_gb_per_s"]) == {"memory", "cache"}
    shapes = {(row["kernel"], row["shape"]) for row in report["rows"]}
    assert {
        ("plan", "6 levels 32x32"), ("conv 3x3", "40->48 6x6"), ("modulate", "40 32x32"), ("norm", "64 8x8"),
        ("modulate", "64 16x16 upsampled"), ("codebook per tap", "64 16x16"), ("image", "3 32x32"),
    } <= shapes  # fmt: skip


def test_rates_and_shares_follow_from_the_times(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        assert 0 < row["ms_min"] <= row["ms_median"]
        assert row["ratio"] == pytest.approx(row["peer_ms_median"] / row["ms_median"])
        assert row["gflop_per_s"] == pytest.approx(row["operations"] / row["ms_median"] / 1e6)
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["ms_median"] / 1e6)
        of_peak = row["kernel"].startswith(("conv", "codebook"))
        int8 = row["dtype"] == "int8"
        assert row["share_of"] == ("int8 peak" if int8 else "peak" if of_peak else "copy")
        if of_peak:
            peak = report["context"]["peak_gflop_per_s_per_core"][row["isa"]] * row["threads"] * (2 if int8 else 1)
            assert row["share"] == pytest.approx(row["gflop_per_s"] / peak)
        else:
            assert row["share"] == pytest.approx(row["gb_per_s"] / row["copy_gb_per_s"])


def test_operations_and_bytes_are_those_of_the_form() -> None:
    isa, pool = supported_isas()[0], Pool(1)  # float32
    conv = conv_case(isa, (40, 48, 6, 3), pool)
    assert conv.operations == 2 * 40 * 48 * 9 * 36
    assert conv.bytes == 4 * (40 * 36 + 48 * 36 + 40 * 48 * 9)
    level = plan(symbols(), CONFIG.level_sizes, CONFIG.symbols, 3)[3]
    u3, u5 = len(level.patches3), len(level.patches5)
    gathered = codebook_case(isa, level, 40, "gathered", pool)
    per_tap = codebook_case(isa, level, 40, "per_tap", pool)
    assert gathered.operations == 2 * u5 * 9 * 128 * 80
    assert per_tap.operations == 2 * (u3 + 1) * 9 * 128 * 80 + u5 * 9 * 80
    assert gathered.bytes == per_tap.bytes == 4 * (9 * u5 + (u3 + 1) * 128 + 9 * 128 * 80 + u5 * 80)
    embed = embed_case(isa, level, CONFIG.symbols, pool)
    named = len({(tap, symbol) for patch in level.patches3.tolist() for tap, symbol in enumerate(patch)})
    assert embed.bytes == 4 * (128 * named + 9 * u3 + (u3 + 1) * 128)


def test_the_median_map_is_planned() -> None:
    maps = np.concatenate([symbols(), symbols(classes=1), symbols(classes=1)])
    maps[2, :8] = maps[0, :8]
    middle, levels = median_map(maps, CONFIG)
    assert (middle == maps[2]).all()
    assert (levels[-1].index == plan(middle, CONFIG.level_sizes, CONFIG.symbols, 3)[-1].index).all()


def test_an_unknown_isa_is_refused() -> None:
    done = CliRunner().invoke(main, ["--isas", "sse"])
    assert done.exit_code == 2
    assert "but got 'sse'" in done.output


@pytest.mark.parametrize("wrong", [1.1, np.nan])
def test_results_that_differ_are_refused(wrong: float) -> None:
    check("conv", "torch", np.ones(3), np.ones(3), rounding("float32"))
    with pytest.raises(
        RuntimeError, match=r"\[benchmark\] expected conv within .* of torch but got .*; run the kernel"
    ):
        check("conv", "torch", np.array([1.0, wrong, 1.0]), np.ones(3), rounding("float32"))


@pytest.mark.parametrize("kernel", ["plan", "conv 3x3"])
def test_a_kernel_that_differs_from_any_peer_is_not_timed(kernel: str) -> None:
    isa = supported_isas()[0]
    case = plan_case(symbols(), CONFIG) if kernel == "plan" else conv_case(isa, (32, 32, 4, 3), Pool(1))
    case.native.call()  # its output is memory that nobody has written yet
    right = list(case.native.read())
    calls: list[str] = []

    def wrong() -> list[npt.NDArray[Any]]:
        return [*right[:-1], right[-1] + 1]

    native = replace(case.native, call=lambda: calls.append("native"), read=wrong)
    with pytest.raises(RuntimeError, match=rf"expected {kernel} .* but got"):
        measure(replace(case, native=native), 1.0, 1)
    assert calls == ["native"]
