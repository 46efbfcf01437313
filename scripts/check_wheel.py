"""Build a wheel and fail where it lacks a file of the packages, or its commands do not run outside the checkout.

    python scripts/check_wheel.py [WHEEL]

Without WHEEL, the wheel is built first, which compiles the kernels. The wheel is installed into a fresh virtual
environment that sees the other packages of the Python that runs this script.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("spade_core", "kernels", "export", "serving", "trainer", "benchmarks")
# Sources of the compiled modules. The CUDA sources and headers are in the wheel, since PTX is compiled from them.
COMPILED = ("kernels/cpu/", "kernels/include/spade_kernels.h")
COMMANDS = (
    ["-m", "serving.cli", "--help"],
    ["-m", "serving.cli", "info"],
    ["-m", "serving.cli", "bench", "server", "--help"],
    ["-m", "serving.cli", "bench", "model", "--batches", "1", "--turns", "2", "--peers", "none", "--engines",
     "cpu-fp32", "--html", "model.html"],
)  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = Path(sys.argv[1]).resolve() if sys.argv[1:] else build(folder)
        if absent := missing(wheel):
            sys.exit(f"error: expected every file of the packages in {wheel.name} but found no {', '.join(absent)}")
        python = install(wheel, folder / "venv")
        for command in COMMANDS:
            run([str(python), *command], folder)
            print(f"{' '.join(command)}: ok", flush=True)


def build(folder: Path) -> Path:
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    return next(folder.glob("*.whl"))


def missing(wheel: Path) -> list[str]:
    """The tracked files of the packages that the wheel lacks, without the sources of compiled modules."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = [name for name in listed.splitlines() if not name.endswith(".cpp") and not name.startswith(COMPILED)]
    return [name for name in wanted if name not in held]


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment at `folder` with the wheel, and the packages of this Python by a .pth file."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], folder)
    return python


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: `{' '.join(command)}` failed in {folder}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
