"""Where the CUDA compiler is, and what it is told: the one place for the build, the tests and the PTX."""

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
INCLUDES = (CUDA.parent, CUDA.parent / "include")  # of our headers
SOURCES = (
    "codebook", "error", "image", "modulate_codebook", "modulate_codebook_backward", "modulate_dense", "norm", "plan"
)  # fmt: skip

# Ampere (A100), Hopper (H100, H200), Blackwell (B200).
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")


class ToolkitError(RuntimeError):
    """No CUDA compiler, or one that failed; the message holds its words."""


def find_nvcc(environment: Mapping[str, str] = os.environ) -> Path:
    """$CUDACXX, nvcc on PATH, under $CUDA_HOME or /usr/local/cuda, or of a wheel from PyPI. Raises ToolkitError."""
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
            "or `pip install 'spade-serve[nvcc]'`"
        )
    return found


def run_nvcc(arguments: Sequence[str | Path], *, nvcc: Path | None = None) -> str:
    """Run nvcc; returns what it printed. Raises ToolkitError."""
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
    """The file of a source: `modulate_dense` is in the folder of its operation, modulate/."""
    (path,) = CUDA.glob(f"*/{name}.cu")
    return path


@functools.cache
def compile_ptx(source: str, architecture: str = "compute_80") -> str:
    """The PTX of one source, `modulate_codebook` say, for a virtual architecture; newer GPUs take that of older ones.

    Kernels have C names, so that a driver, PyCUDA or a TensorRT plugin finds them. Raises ToolkitError.
    """
    with tempfile.TemporaryDirectory() as folder:  # with /dev/stdout nvcc waits for ever for compute_90a
        out = Path(folder, f"{source}.ptx")
        run_nvcc(["-ptx", f"-arch={architecture}", source_path(source), "-o", out])
        return out.read_text()
