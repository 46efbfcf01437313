"""The amx kernels on processors without AMX: their own sources, compiled with the headers in amx_emulator/.

On processors without AVX-512, or without its bf16 or VNNI, the kernels of avx512 and avx512bf16 are emulated too.

    python tests/kernels/amx_emulated.py -m pytest tests/kernels -k amx
    python tests/kernels/amx_emulated.py tests/serving/test_image_hashes.py

run a module or a script with a `kernels._native` whose amx kernels are emulated. Processes that the module or script
starts use the installed `kernels._native` again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KERNELS = REPOSITORY / "kernels"
EMULATOR = Path(__file__).resolve().parent / "amx_emulator"
AVX512 = ("avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni")
AVX2 = ("avx2", "fma", "f16c")
"""What the emulator of AMX alone, and the emulator of all wider vectors, need of a processor. /proc/cpuinfo's words."""


class NoEmulatorError(RuntimeError):
    """The emulator does not run on this processor, or cannot be built here."""


def processor_has(*flags: str) -> bool:
    """Whether /proc/cpuinfo lists all these flags."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return set(flags) <= set(next((line.split() for line in lines if line.startswith("flags")), ()))


HAS_AVX512 = processor_has(*AVX512)
EMULATED = ("amx",) if HAS_AVX512 else ("avx512", "avx512bf16", "amx")
SOURCES = [
    KERNELS / "cpu" / "isa" / "isa.cpp",
    *(KERNELS / "cpu" / operation / f"{operation}_{isa}.cpp" for isa in EMULATED for operation in ("conv", "isa")),
]
# The flags of CMakeLists.txt for the ISA avx512bf16, and VNNI for the emulator; or AVX2 and its float16 conversions.
PROCESSOR_FLAGS = (
    ["-mprefer-vector-width=512", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mavx512vnni"]
    if HAS_AVX512
    else ["-mf16c", "-Wno-psabi"]
)
FLAGS = [
    "-std=c++20", "-O1", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-mavx2", "-mfma", *PROCESSOR_FLAGS,
    "-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option", "-Werror",
    f"-I{EMULATOR}", f"-I{KERNELS}", f"-I{KERNELS / 'include'}",
]  # fmt: skip


def compile_cpp(out: Path, *arguments: str | Path) -> None:
    """Compile a shared library with $CXX, g++ or c++."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or "c++"
    done = subprocess.run([compiler, "-shared", *arguments, "-o", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def installed_parts() -> list[Path]:
    """What the editable installation left of `kernels._native`: the binding's object and two archives.

    Raises NoEmulatorError.
    """
    names = ("CMakeFiles/_native.dir/kernels/binding.cpp.o", "libspade_kernels_cpu.a", "libnanobind-static.a")
    tag = f"cp3{sys.version_info[1]}"
    parts = [path for name in names for path in REPOSITORY.glob(f"build/{tag}-*/{name}")]
    if len(parts) != len(names):
        raise NoEmulatorError(f"the emulator of AMX needs build/{tag}-*/ of one editable installation; scripts/test")
    return parts


def emulated_native() -> Path:
    """The module, linked from the installed parts; a linker takes no object of an archive that is there already.

    It stays in build/amx_emulator until a source changes. Raises NoEmulatorError.
    """
    if not processor_has(*AVX2):
        raise NoEmulatorError(f"the emulator of AMX needs a processor with {', '.join(AVX2)}")
    parts = installed_parts()
    sources = [path for folder in (KERNELS, EMULATOR) for path in sorted(folder.rglob("*.[ch]*")) if path.is_file()]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (*sources, *parts):
        digest.update(path.read_bytes())
    folder = REPOSITORY / "build" / "amx_emulator"
    folder.mkdir(exist_ok=True)
    module = folder / f"_native-{digest.hexdigest()[:16]}.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            for old in folder.glob("_native-*"):
                old.unlink()
            compile_cpp(folder / "_native-unfinished.so", *FLAGS, *SOURCES, *parts, "-pthread")
            (folder / "_native-unfinished.so").rename(module)
    return module


def use(module: Path) -> None:
    """Put the module in the place of `kernels._native`, before anything imports that."""
    sys.path.insert(0, str(REPOSITORY))
    name = "kernels._native"
    assert name not in sys.modules
    spec = importlib.util.spec_from_file_location(name, module)
    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def main(arguments: Sequence[str]) -> None:
    use(emulated_native())
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        sys.path.insert(1, str(REPOSITORY))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
