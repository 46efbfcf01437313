"""Triton's interpreter in a process of its own, because TRITON_INTERPRET must be set before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]

Call = tuple[str, list[Any], dict[str, Any]]
"""A function of `benchmarks.gpu.triton_peers`, its arguments, its options."""

KERNELS = {
    "modulate_dense": ["modulate_dense"],
    "modulate_dense_instance": ["instance_statistics", "modulate_dense"],
    "instance_statistics": ["instance_statistics"],
    "modulate_codebook": ["modulate_codebook"],
    "codebook_product": ["codebook_product"],
}
"""The kernels that each function launches."""


def interpreted(function: str, folder: Path, *arguments: object) -> Any:
    """Run a function of this module in such a process, with warnings as errors. Files are written to the folder."""
    given, returned = folder / "arguments.pt", folder / "returned.pt"
    torch.save(arguments, given)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.benchmarks.triton_interpreted", function, given, returned],
        cwd=REPOSITORY, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(returned)


def outputs(calls: list[Call]) -> list[list[Tensor]]:
    """The outputs of every call, in each configuration of its kernels."""
    from benchmarks.gpu import triton_peers

    return [
        [getattr(triton_peers, name)(*arguments, **options) for _ in _configurations(KERNELS[name])]
        for name, arguments, options in calls
    ]


def errors_of_peers() -> dict[str, tuple[float, float]]:
    """The error and the limit of every case's peer on a small generator, without bfloat16 products; see the tests."""
    from benchmarks.common.maps import read_maps
    from benchmarks.gpu.cases import cases
    from spade_core.config import preset

    turn = _configurations(sorted({name for names in KERNELS.values() for name in names}))
    next(turn)  # sets the first configuration of each kernel, until the process ends
    small = replace(preset("coco"), height=32, width=32, nf=2)
    errors = {}
    for planned in cases(small, read_maps(small, None, count=1), torch.device("cpu"), batch=1):
        if planned.name == "plan" or (planned.name.startswith("codebook") and planned.dtype == "bfloat16"):
            continue
        case = planned.make()
        if case.triton is not None:
            error = case.judge(case.triton(), case.expected())
            errors[f"{planned.name} {planned.shape} {planned.dtype}"] = (error, case.limit)
    return errors


def tried(calls: list[Call]) -> list[int]:
    """How many configurations the tuner tries for each call, with a clock that always says 1."""
    import triton.testing

    from benchmarks.gpu import triton_peers

    count = 0

    def bench(call: Callable[[], None], **_: object) -> list[float]:
        nonlocal count
        count += 1
        call()
        return [1.0]

    triton.testing.do_bench = bench
    numbers = [0]
    for name, arguments, options in calls:
        getattr(triton_peers, name)(*arguments, **options)
        numbers.append(count)
    return [after - before for before, after in pairwise(numbers)]


def _configurations(names: Sequence[str]) -> Iterator[int]:
    """Give kernels one configuration after another. With several, Triton would time them, which needs a GPU."""
    from benchmarks.gpu import triton_kernels

    tuned = [getattr(triton_kernels, name) for name in names]
    every = [list(kernel.configs) for kernel in tuned]
    for number in range(max(map(len, every))):
        for kernel, configs in zip(tuned, every, strict=True):
            kernel.configs = [configs[number % len(configs)]]
        yield number
    for kernel, configs in zip(tuned, every, strict=True):
        kernel.configs = configs


if __name__ == "__main__":
    name, given, returned = sys.argv[1:]
    assert name in {"outputs", "errors_of_peers", "tried"}
    torch.save(globals()[name](*torch.load(given)), returned)
