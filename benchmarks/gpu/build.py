"""Builds the kernels with CMake alone, for the GPU of this machine: needs no network and no `pip install`.

The modules lie beside their sources afterwards, where `python -m benchmarks.gpu` in the checkout finds them, or in the
place of those that were installed before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.setting import Report, Setting

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "gpu"


def architecture(capability: tuple[int, int]) -> str:
    """CMake's name of a GPU's architecture: `90a-real` of Hopper, which has warpgroup products, else `MAJOR MINOR`."""
    return "90a-real" if capability == (9, 0) else f"{capability[0]}{capability[1]}-real"


def prefix() -> Path:
    """Where the modules go: over the installed ones, where Python finds those first; else beside their sources."""
    try:
        from kernels.native import native
    except ImportError:
        return ROOT
    return Path(native.__file__).parents[1]


def commands(nanobind: str, target: str, generator: str | None) -> list[list[str]]:
    """Configure, build and install."""
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(FOLDER), "-DCMAKE_BUILD_TYPE=Release", "-DSPADE_CUDA=ON",
        f"-DCMAKE_CUDA_ARCHITECTURES={target}", f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}",
        *(["-G", generator] if generator else []),
    ]  # fmt: skip
    build = ["cmake", "--build", str(FOLDER), "--parallel"]
    return [configure, build, ["cmake", "--install", str(FOLDER), "--prefix", str(prefix())]]


def build(setting: Setting) -> Report:
    """Build the kernels, and meanwhile import what the next steps import, which fills the machine's file cache."""
    if setting.rehearsed is not None:
        return {"skipped": "a rehearsal: the kernels are emulated"}
    import torch

    warm = subprocess.Popen([sys.executable, "-c", "import triton, torch._inductor.compile_fx"])
    began = time.monotonic()
    target = architecture(torch.cuda.get_device_capability())
    nanobind = subprocess.run(
        [sys.executable, "-m", "nanobind", "--cmake_dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    generator = "Ninja" if shutil.which("ninja") else None
    for command in commands(nanobind, target, generator):
        left = max(1.0, setting.ends - time.monotonic())
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
        if done.returncode:
            raise RuntimeError(f"[build] {' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    report: Report = {"architecture": target, "build_s": round(time.monotonic() - began, 1)}
    warm.wait(max(1.0, setting.ends - time.monotonic()))
    return report
