"""CUDA source to PTX by the CUDA toolkit's nvcc: what an ahead-of-time TensorRT plugin puts into the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "kernels" / "cuda"
MODULATE = SOURCES / "modulate_codebook.cu"
# The driver compiles PTX for the GPU it meets: one text for compute capability 8.0 and everything after.
ARCHITECTURE = "compute_80"


class PtxError(RuntimeError):
    """No PTX; the message says what is missing or what the compiler said."""


def compile_ptx(source: Path = MODULATE, architecture: str = ARCHITECTURE) -> str:
    """The PTX of every kernel in `source`. Raises PtxError."""
    if not source.is_file():
        raise PtxError(
            f"[ptx] expected the CUDA source {source.name} in {source.parent} but it is not there; "
            "build engines of the codebook graph from a source checkout"
        )
    nvcc = os.environ.get("SPADE_NVCC") or shutil.which("nvcc")
    if nvcc is None:
        raise PtxError(
            "[ptx] expected nvcc on PATH but found none; install the CUDA toolkit (12.4 or newer), name nvcc in "
            "SPADE_NVCC, or leave the plugin out with --no-plugin: TensorRT then inlines the step as plain operators"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "kernels.ptx")
        include = f"-I{source.parent.parent / 'include'}"
        command = [nvcc, "-ptx", f"-arch={architecture}", "-std=c++17", "-O3", include, "-o", str(out), str(source)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PtxError(f"[ptx] expected {source.name} to compile with {nvcc} but got:\n{done.stderr[-2000:]}")
        return out.read_text()
