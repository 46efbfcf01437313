"""A few seconds of libFuzzer on plan and symbols, where clang has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NO_FUZZER = 3


def test_a_short_run_finds_nothing() -> None:
    # Without the steps of the generator, which take minutes to compile.
    command = [REPOSITORY / "scripts/fuzz_native", "3", "plan", "symbols"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NO_FUZZER:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("number_of_executed_units") == 2
