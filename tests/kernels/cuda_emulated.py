"""The CUDA kernels on the CPU: their own sources, compiled with the headers in cuda_emulator/, as a `Library`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kernels.cuda.host.library import Library
from kernels.cuda.host.toolkit import INCLUDES
from tests.made_once import folder_of_run, made_once

REPOSITORY = Path(__file__).resolve().parents[2]
EMULATOR = REPOSITORY / "tests" / "kernels" / "cuda_emulator"

# Orders of a block's threads other than the usual one. A kernel that waits where it must gives the same bits in each.
each_order = pytest.mark.parametrize("order", ["reverse", "warps"])


def compiler() -> str:
    """The C++ compiler: $CXX, g++ or c++."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or "c++"


def compile_emulated(out: Path, *flags: str, kernels: Sequence[str] = ("*",)) -> None:
    """Compile the emulator and the named kernel sources (all by default) into one shared library."""
    folder = REPOSITORY / "kernels" / "cuda"
    sources = [path for name in kernels for path in sorted(folder.glob(f"*/{name}.cu"))]
    sources += [folder / "host" / "status.cpp", EMULATOR / "emulator.cpp"]
    # This processor's own fmaf, which else is a call of libm. A product and a sum stay two roundings.
    options = [
        "-std=c++20", "-O2", "-march=native", "-ffp-contract=off", "-fPIC", "-Wall", "-Wextra", "-Werror",
        "-Wno-unknown-pragmas", "-DSPADE_CUDA_WGMMA", "-I", str(EMULATOR), *(f"-I{folder}" for folder in INCLUDES),
        *flags,
    ]  # fmt: skip
    with TemporaryDirectory() as objects, ThreadPoolExecutor(os.cpu_count()) as threads:
        files = [f"{objects}/{source.stem}.o" for source in sources]
        list(threads.map(lambda source, file: _run(*options, "-x", "c++", "-c", source, "-o", file), sources, files))
        _run("-shared", *files, "-o", out)


def _run(*arguments: str | Path) -> None:
    done = subprocess.run([compiler(), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """All kernels, emulated; compiled once for all parallel workers of a run."""
    library = folder_of_run(tmp_path_factory) / "libspade_cuda_emulated.so"
    return Library(made_once(library, compile_emulated), device="cpu")
