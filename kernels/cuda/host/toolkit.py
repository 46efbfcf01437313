"""Finds nvcc, the CUDA compiler, and runs it: for the PTX of a kernel and for the tests."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CUDA = Path(__file__).resolve().parents[1]
INCLUDES = (CUDA.parent, CUDA.parent / "include")  # folders of our headers
SOURCES = (
    "codebook", "error", "image", "modulate_codebook", "modulate_codebook_backward", "modulate_dense", "norm", "plan"
)  # fmt: skip

# Ampere (A100; A10, RTX 30), Ada (L4, L40S, RTX 40), Hopper (H100, H200), Blackwell (B200; RTX 50, RTX PRO). PTX of the
# last virtual architecture is for the GPUs that come.
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
PTX_ARCHITECTURE = "compute_100"


class ToolkitError(RuntimeError):
    """There is no CUDA compiler, or the compiler failed; the message quotes it."""


def find_nvcc(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of nvcc. Raises ToolkitError.

    Looks at $CUDACXX, on PATH, under $CUDA_HOME and /usr/local/cuda, and in the wheels from PyPI, in this order.
    """
    on_path = shutil.which(environment.get("CUDACXX", "nvcc"), path=environment.get("PATH"))
    candidates = [Path(on_path)] if on_path else []
    candidates += [
        Path(folder, "bin", "nvcc") for folder in (environment.get("CUDA_HOME", ""), "/usr/local/cuda") if folder
    ]
    wheel = importlib.util.find_spec("nvidia")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        candidates += sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ToolkitError(
            "[cuda] expected nvcc on PATH, in $CUDACXX or under $CUDA_HOME but found none; install the CUDA toolkit, "
            "or `pip install -e '.[nvcc]'` in the checkout"
        )
    return found


def run_nvcc(arguments: Sequence[str | Path], *, nvcc: Path | None = None) -> str:
    """Run nvcc with this project's headers; returns its output. Raises ToolkitError."""
    command = [
        str(nvcc or find_nvcc()),
        "-std=c++20",
        "-O3",
        *(f"-I{folder}" for folder in INCLUDES),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolkitError(f"[cuda] nvcc failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def source_path(name: str) -> Path:
    """The file of a source by its name: `modulate_dense` is modulate/modulate_dense.cu."""
    (path,) = CUDA.glob(f"*/{name}.cu")
    return path


@functools.cache
def compile_ptx(source: str, architecture: str = "compute_80") -> str:
    """The PTX of one source, such as `modulate_codebook`, for a virtual architecture. Raises ToolkitError.

    A GPU runs the PTX of its own architecture and of every older one. Kernels have C names, so that a driver, PyCUDA or
    a TensorRT plugin finds them.
    """
    with tempfile.TemporaryDirectory() as folder:  # nvcc never ends if it writes to /dev/stdout for compute_90a
        out = Path(folder, f"{source}.ptx")
        run_nvcc(["-ptx", f"-arch={architecture}", source_path(source), "-o", out])
        return out.read_text()
