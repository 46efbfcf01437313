"""The machine code of the CUDA kernels: one source compiled for every target, its resources and its instructions."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.cuda.host import occupancy, toolkit
from kernels.cuda.host.occupancy import Resources, read_resources
from kernels.cuda.host.toolkit import INCLUDES, PTX_ARCHITECTURE, find_nvcc, run_nvcc, source_path

# Targets that share a virtual architecture share the front end's work: half of the compiler's time.
TARGETS = {
    "compute_80": ("sm_80", "sm_86", "sm_89"),
    "compute_90a": ("sm_90a",),
    PTX_ARCHITECTURE: ("sm_100", "sm_120", PTX_ARCHITECTURE),
}

_INSTRUCTION = re.compile(
    r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)[^\n]*?/\* 0x[0-9a-f]{16} \*/\s*/\* 0x([0-9a-f]{16}) \*/"
)


@dataclass(frozen=True)
class Instruction:
    """One machine instruction: its name with its modifiers, and the scoreboards it waits for before it is issued."""

    name: str
    waits: frozenset[int]


@dataclass(frozen=True)
class Compiled:
    """A source compiled for every target."""

    path: Path
    printed: str
    resources: Sequence[Resources]


def compile_all(source: str, folder: Path, targets_of: Mapping[str, Sequence[str]] = TARGETS) -> Compiled:
    """Compile a source for every architecture, and PTX for the GPUs that come; warnings are errors."""
    targets = [f"-gencode=arch={virtual},code=[{','.join(names)}]" for virtual, names in targets_of.items()]
    path = folder / f"{source}.fatbin"
    printed = run_nvcc(
        ["-Xptxas", "-v", "-Werror", "all-warnings", *targets, "-fatbin", source_path(source), "-o", path]
    )
    return Compiled(path, printed, tuple(read_resources(printed)))


@functools.cache
def compiler_version() -> str:
    """The line of `nvcc --version` that names the build."""
    return subprocess.run([find_nvcc(), "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[-2]


def fingerprint(source: str, *checks: Path) -> str:
    """A hash of all that the machine code of a source and the checks of it depend on, the compiler included."""
    headers = {path for folder in INCLUDES for kind in ("h", "hpp") for path in folder.rglob(f"*.{kind}")}
    modules = [Path(str(module.__file__)) for module in (occupancy, toolkit)]
    digest = hashlib.sha256(compiler_version().encode())
    for path in (source_path(source), *sorted(headers), *modules, Path(__file__), *checks):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def find_cuobjdump() -> Path:
    """cuobjdump of the CUDA toolkit, or the copy in Triton's wheel, which the dev environment has."""
    on_path = shutil.which("cuobjdump")
    if on_path:
        return Path(on_path)
    triton = importlib.util.find_spec("triton")
    assert triton is not None
    assert triton.origin is not None
    return Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def instructions(binary: Path, architecture: str, kernels: Sequence[str]) -> Mapping[str, list[Instruction]]:
    """The instructions of some kernels of a compiled source on one architecture."""
    done = subprocess.run(
        [find_cuobjdump(), "-sass", "-arch", architecture, "-fun", ",".join(kernels), binary],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {}
    for name, body in re.findall(r"Function : (\w+)(.*?)(?=Function :|\Z)", done.stdout, re.DOTALL):
        found[name] = [
            Instruction(match[1], _waits(int(match[2], 16))) for match in _INSTRUCTION.finditer(body)
        ]  # fmt: skip
    return found


def _waits(control: int) -> frozenset[int]:
    # Since Volta bits 116 to 121 of an instruction's 128 are a mask of the six scoreboards it waits for.
    mask = control >> (116 - 64) & 0x3F
    return frozenset(i for i in range(6) if mask >> i & 1)
