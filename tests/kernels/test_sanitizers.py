"""The C++ tests of the kernels, built with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH; pip install cmake")
    folder = tmp_path_factory.mktemp("sanitize")
    run("cmake", "-S", REPOSITORY, "-B", folder, "-DSPADE_SANITIZE=ON")
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


@pytest.mark.parametrize("program", ["plan_test", "plan_test_collisions"])
def test_plan(build: Path, program: str) -> None:
    assert run(build / program) == "plan_test: all equal\n"


def test_steps(build: Path) -> None:
    assert run(build / "steps_test") == "steps_test: all equal\n"
