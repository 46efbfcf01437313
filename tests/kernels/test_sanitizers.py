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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder that is configured; each test builds its own program there, and they share objects."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH; pip install cmake")
    folder = tmp_path_factory.mktemp("sanitize")
    run("cmake", "-S", REPOSITORY, "-B", folder, "-DSPADE_SANITIZE=ON")
    return folder


def build_and_run(folder: Path, program: str) -> str:
    run("cmake", "--build", folder, "--parallel", "2", "--target", program)
    return run(folder / program)


@pytest.mark.parametrize("program", ["plan_test", "plan_test_collisions"])
def test_plan(folder: Path, program: str) -> None:
    assert build_and_run(folder, program) == "plan_test: all equal\n"


def test_steps(folder: Path) -> None:
    assert build_and_run(folder, "steps_test") == "steps_test: all equal\n"
