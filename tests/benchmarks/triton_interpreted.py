"""Triton's interpreter in a process of its own, because TRITON_INTERPRET must be set before Triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
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


class Interpreter:
    """Such a process, with warnings as errors. It imports PyTorch and Triton once and forks for each call, so that no
    call sees what another has tuned."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.benchmarks.triton_interpreted"],
            cwd=REPOSITORY, env=os.environ | {"TRITON_INTERPRET": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, function: str, folder: Path, *arguments: object) -> Any:
        """Run a function of this module there. Files are written to the folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        given, returned = folder / "arguments.pt", folder / "returned.pt"
        torch.save(arguments, given)
        print(json.dumps([function, str(given), str(returned)]), file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "0\n", f"{function} failed in the interpreter, which says why above"
        return torch.load(returned)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


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


def _serve() -> None:
    """Run what each line of standard input asks for, each in a fork, and print its exit status."""
    import benchmarks.gpu.cases
    import benchmarks.gpu.triton_peers  # noqa: F401 - imported once, for all forks

    # Since Python 3.12 a fork beside threads is a warning; PyTorch's have nothing to do here.
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    for line in sys.stdin:
        name, given, returned = json.loads(line)
        child = os.fork()
        if child == 0:
            torch.save(FUNCTIONS[name](*torch.load(given)), returned)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


FUNCTIONS: dict[str, Callable[..., Any]] = {"outputs": outputs, "errors_of_peers": errors_of_peers, "tried": tried}

if __name__ == "__main__":
    _serve()
