"""Peers in OpenAI's Triton: their results in Triton's interpreter, and how the GPU benchmark uses them.

The interpreter runs on the CPU. It checks the masks, offsets and sums of every configuration that the tuner may choose,
but no launch on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor

import benchmarks.gpu
from benchmarks.gpu import kernels as gpu_kernels
from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import Case
from benchmarks.gpu.setting import Report
from benchmarks.gpu.timing import Clock
from kernels.constants import HIDDEN
from kernels.cuda.host.tensors import in_layout
from kernels.cuda.modulate.modulate_codebook import Modulation, modulate_codebook_torch
from kernels.cuda.modulate.modulate_dense import modulate_dense_torch
from kernels.cuda.norm.norm import Statistics, statistics_torch
from tests.benchmarks.triton_interpreted import Call, Interpreter
from tests.kernels.tolerances import assert_within, gamma, normalised_rounding, stored_bound

pytestmark = pytest.mark.xdist_group("interpreter")  # one worker starts the process

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# N, C, H, W: one pixel; channels that do not fill a vector; C with a partial tile; several tiles and splits of a plane.
SIZES = [(1, 5, 1, 1), (2, 40, 3, 7), (2, 96, 9, 5), (2, 24, 9, 15)]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Interpreter]:
    interpreter = Interpreter()
    yield interpreter
    interpreter.close()


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def maps(size: tuple[int, int, int, int], dtype: torch.dtype, count: int) -> list[Tensor]:
    return [in_layout(normal(size, dtype, seed), "nhwc") for seed in range(count)]


def expect(outputs: list[Tensor], expected: Tensor, computed: Tensor) -> None:
    """Assert that the outputs of all configurations are within `computed`, and a rounding, of `expected`."""
    for out in outputs:
        bound = stored_bound(computed, expected, str(out.dtype).removeprefix("torch."))
        # The interpreter truncates to bfloat16 where a GPU rounds: its error is twice as large.
        assert_within(out.double(), expected, bound * (2 if out.dtype == torch.bfloat16 else 1))


def test_dense_with_given_statistics(interpreted: Interpreter, tmp_path: Path) -> None:
    calls: list[Call] = []
    for dtype, size in product(DTYPES, SIZES):
        for images in {1, size[0]}:  # statistics of the batch, and of each image
            mean, rstd = normal((images, size[1]), torch.float32, 3), normal((images, size[1]), torch.float32, 4).abs()
            calls.append(("modulate_dense", [*maps(size, dtype, 3), mean, rstd], {}))
    for (_, arguments, _), outputs in zip(calls, interpreted("outputs", tmp_path, calls), strict=True):
        x, scale, bias, mean, rstd = (t.double() for t in arguments)
        sizes = (x.abs() + mean.abs()[:, :, None, None]) * rstd[:, :, None, None] * (1 + scale.abs()) + bias.abs()
        expect(outputs, modulate_dense_torch(x, scale, bias, Statistics(mean, rstd)), gamma(10) * sizes)


def test_dense_with_the_statistics_of_each_image(interpreted: Interpreter, tmp_path: Path) -> None:
    calls: list[Call] = [
        ("modulate_dense_instance", maps(size, dtype, 3), {}) for dtype, size in product(DTYPES, SIZES[1:])
    ]
    for (_, arguments, _), outputs in zip(calls, interpreted("outputs", tmp_path, calls), strict=True):
        x, scale, bias = (t.double() for t in arguments)
        statistics = statistics_torch(x, "instance")
        mean, rstd = (t[:, :, None, None] for t in (statistics.mean, statistics.rstd))
        first = x[:, :, :1, :1]
        sizes = (x.abs() + first.abs() + mean.abs() + x.abs().mean((2, 3), keepdim=True)) * rstd * (1 + scale.abs())
        # The variance is the mean square of x - first minus the square of their mean: this is the loss by cancellation.
        condition = 1 + ((first - mean) * rstd).square()
        computed = normalised_rounding(x[0, 0].numel()) * (sizes * condition + bias.abs())
        expect(outputs, modulate_dense_torch(x, scale, bias, statistics), computed)


def test_statistics_of_values_far_from_zero(interpreted: Interpreter, tmp_path: Path) -> None:
    x = maps((2, 8, 24, 24), torch.float32, 1)[0] + 1000
    exact = statistics_torch(x.double(), "instance")
    (outputs,) = interpreted("outputs", tmp_path, [("instance_statistics", [x], {})])
    for got in outputs:
        assert_within(got[0], exact.mean, 1e-6 * exact.mean.abs())
        assert_within(
            got[1], exact.rstd, 1e-4 * exact.rstd
        )  # float32 sums of the squares of x itself would lose every digit


def test_codebook_modulation(interpreted: Interpreter, tmp_path: Path) -> None:
    calls: list[Call] = []
    for dtype, (n, channels, height, width), shift in product(DTYPES, [*SIZES, (1, 320, 4, 6)], (0, 1)):
        random = torch.Generator().manual_seed(height)
        index = torch.randint(0, 7, (n, height << shift, width << shift), generator=random, dtype=torch.int32)
        x, entries = maps((n, channels, height, width), dtype, 1)[0], normal((7, 2 * channels), dtype, 1)
        calls.append(("modulate_codebook", [x, entries, index], {"shift": shift}))
    for (_, arguments, options), outputs in zip(calls, interpreted("outputs", tmp_path, calls), strict=True):
        x, entries, index, shift = arguments[0].double(), arguments[1].double(), arguments[2], options["shift"]
        sizes = modulate_codebook_torch(x.abs(), entries.abs(), index, Modulation(shift=shift, leaky=False))
        expect(outputs, modulate_codebook_torch(x, entries, index, Modulation(shift=shift)), gamma(4) * sizes)


def test_codebook_product(interpreted: Interpreter, tmp_path: Path) -> None:
    """In float16 only: the interpreter multiplies bfloat16 as integers, so the bfloat16 product is only compiled."""
    calls: list[Call] = []
    for rows, rows3, columns, taps in [(1, 1, 8, 1), (77, 30, 144, 9), (200, 9, 40, 3)]:
        patches = torch.randint(
            0, rows3, (rows, taps), generator=torch.Generator().manual_seed(rows), dtype=torch.int32
        )
        actv, weight = normal((rows3, HIDDEN), torch.float16), normal((taps * HIDDEN, columns), torch.float16, 1)
        calls.append(("codebook_product", [actv, patches, weight, normal((columns,), torch.float32, 2)], {}))
    for (_, arguments, _), outputs in zip(calls, interpreted("outputs", tmp_path, calls), strict=True):
        actv, weight, bias = (arguments[i].double() for i in (0, 2, 3))
        gathered = actv[arguments[1].long()].flatten(1)
        sizes = gathered.abs() @ weight.abs() + bias.abs()
        expect(outputs, gathered @ weight + bias, gamma(len(weight) + 1) * sizes)


def test_every_peer_computes_what_its_case_does(interpreted: Interpreter, tmp_path: Path) -> None:
    errors = interpreted("errors_of_peers", tmp_path)
    names = {name.split()[0] for name in errors}
    assert names == {"modulate_codebook", "modulate_dense", "codebook"}
    assert all(error <= limit for error, limit in errors.values()), errors


def test_the_tuner_tries_few_configurations(interpreted: Interpreter, tmp_path: Path) -> None:
    x, index = maps((1, 16, 4, 4), torch.float16, 1)[0], torch.zeros((1, 4, 4), dtype=torch.int32)
    wide, entries = torch.zeros((1, 8, 8), dtype=torch.int32), normal((1, 32), torch.float16)
    actv, weight, bias = (
        normal((1, HIDDEN), torch.float16),
        normal((HIDDEN, 32), torch.float16),
        normal((32,), torch.float32),
    )
    calls = [
        ("modulate_dense_instance", [x, x, x], {}),
        ("modulate_codebook", [x, entries, index], {}),
        ("modulate_codebook", [x, entries, wide], {"shift": 1}),
        ("modulate_codebook", [x, entries, wide], {"shift": 1}),
        ("codebook_product", [actv, index[0, :, :1].contiguous(), weight, bias.float()], {}),
    ]
    assert interpreted("tried", tmp_path, calls) == [5, 2, 2, 0, 5]


def test_bad_arguments_are_named() -> None:
    x, index = torch.zeros(1, 8, 4, 4), torch.zeros((1, 4, 4), dtype=torch.int32)
    with pytest.raises(ValueError, match=r"expected x channels last but got \[1, 8, 4, 4\] of strides \[128, 16, 4, 1"):
        triton_peers.modulate_codebook(x, torch.zeros(1, 16), index)
    with pytest.raises(ValueError, match=r"expected shift 0 or 1 .* but got 1 for x \[1, 8, 4, 4\] and index \[1, 4"):
        triton_peers.modulate_codebook(in_layout(x, "nhwc"), torch.zeros(1, 16), index, shift=1)
    with pytest.raises(ValueError, match=r"expected actv of float16 or bfloat16 but got torch.float32; convert it"):
        triton_peers.codebook_product(torch.zeros(1, HIDDEN), index[0], torch.zeros(4 * HIDDEN, 8), torch.zeros(8))
    with pytest.raises(ValueError, match=r"expected at most 2147483648 elements, .* but got 2147483664; take fewer"):
        triton_peers.instance_statistics(
            torch.empty((1, 16, 1, (1 << 27) + 1), device="meta", memory_format=torch.channels_last)
        )


# ---- How the benchmark takes a peer ----


def case_of(**changes: object) -> Case:
    ones = (torch.ones(3),)
    plain = Case(lambda: ones, lambda: ones, None, 1e-5, 12, 3, triton=lambda: ones)
    return replace(plain, **changes)  # type: ignore[arg-type]


def triton_row(case: Case) -> Report:
    """The columns of the peer in Triton beside a kernel of ours that takes 2 ms."""
    peer = gpu_kernels.PEERS["triton"](case)
    return {} if peer is None else gpu_kernels.peer_row("triton", peer, 2.0, Clock(torch.device("cpu")))


def test_a_peer_that_is_right_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def milliseconds(_clock: Clock, call: Callable[[], object]) -> float:
        call()
        return 3.0

    monkeypatch.setattr(Clock, "milliseconds", milliseconds)
    assert triton_row(case_of()) == {"triton_ms": 3.0, "triton_ratio": 1.5}


@pytest.mark.parametrize("wrong", [1.1, float("nan")])
def test_a_peer_that_is_wrong_is_not_timed(wrong: float) -> None:
    case = case_of(triton=lambda: (torch.full((3,), wrong),))
    row = triton_row(case)
    assert list(row) == ["triton_error"]
    assert "exceeds 1e-05: not timed" in row["triton_error"]


def test_a_peer_that_fails_says_how_in_one_line() -> None:
    def fail() -> tuple[Tensor, ...]:
        raise RuntimeError("no cubin\nfor | sm_99")

    case = case_of(triton=fail)
    assert triton_row(case) == {"triton_error": "RuntimeError: no cubin for / sm_99"}


def test_a_case_without_a_peer_has_no_columns() -> None:
    case = case_of(triton=None)
    assert triton_row(case) == {}


def test_without_triton_there_are_no_peers_and_the_report_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triton_peers.version() == triton.__version__
    assert triton_peers.peer(case_of().call) is not None
    triton_peers._kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "benchmarks.gpu.triton_kernels")
    monkeypatch.delattr(benchmarks.gpu, "triton_kernels")
    assert triton_peers.peer(case_of().call) is None
    assert triton_peers.version() == (
        "absent: import of triton halted; None in sys.modules; pip install -e '.[bench]' in the checkout"
    )
