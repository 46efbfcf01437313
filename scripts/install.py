"""Make .venv and install SPADE Serve into it: `python3 scripts/install.py [EXTRA]`. Needs Python and a C++ compiler.

A second run with the same files and the same extra installs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("SPADE_VENV", ROOT / ".venv"))
TORCH = "torch==2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TRITON = "nvidia-pytriton==0.7.0"


def main() -> None:
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    check_machine()
    stamp, wanted = VENV / ".installed", fingerprint()
    done = stamp.read_text().split() if stamp.exists() else []
    if done[:1] == [wanted] and extra in {"", *done[1:]}:
        return
    if not (VENV / "bin" / "python").exists():
        print(f"making {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    stamp.unlink(missing_ok=True)
    pip("install", "--quiet", "--upgrade", "pip>=24")
    install_torch()
    print("building the kernels and installing the rest", flush=True)
    extras = ",".join(filter(None, [extra, "nvcc" if extra == "dev" and needs_nvcc() else ""]))
    pip("install", "--quiet", "--editable", f"{ROOT}[{extras}]" if extras else str(ROOT))
    install_triton()
    stamp.write_text(f"{wanted} {extra}\n")


def check_machine() -> None:
    """End with a message where the machine lacks something: what is missing, and how to get it."""
    problems = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        problems.append(
            f"Python 3.11 to 3.13, but this is {platform.python_version()}; choose one: PYTHON=python3.12 scripts/demo"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        problems.append("Python's venv module; on Debian and Ubuntu: apt install python3-venv")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")):
        problems.append("a C++20 compiler (g++ 12 or clang 14, or newer); on Debian and Ubuntu: apt install g++")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        problems.append("Python's headers; on Debian and Ubuntu: apt install python3-dev")
    if problems:
        sys.exit("".join(f"error: expected {problem}\n" for problem in problems))


def fingerprint() -> str:
    """A hash of everything the installation is made from: requirements, build files, native sources, Python."""
    digest = hashlib.sha256(f"{sys.version} {TORCH} {TRITON}".encode())
    native = [p for suffix in ("cpp", "cu", "h", "hpp") for p in (ROOT / "kernels").rglob(f"*.{suffix}")]
    for path in [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", *sorted(native)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def install_torch() -> None:
    """Install PyTorch: the CUDA build where there is an NVIDIA GPU, else the CPU build, a tenth of the size."""
    if shutil.which("nvidia-smi"):
        print(f"installing {TORCH} with CUDA", flush=True)
        pip("install", "--quiet", TORCH)
    elif reachable(TORCH_CPU_INDEX):
        print(f"installing {TORCH}, the CPU build", flush=True)
        pip("install", "--quiet", TORCH, "--index-url", TORCH_CPU_INDEX)
    else:
        print(f"installing {TORCH} from pip's own index, since {TORCH_CPU_INDEX} cannot be reached", flush=True)
        pip("install", "--quiet", TORCH)


def needs_nvcc() -> bool:
    """Whether the tests of the CUDA kernels need nvcc from PyPI: the machine has no nvcc, and PyPI has one for it."""
    there = shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()
    return not there and sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"}


def install_triton() -> None:
    """Install the `tritonserver` of the nvidia-pytriton wheel, unless PATH has one, as in NVIDIA's container."""
    if shutil.which("tritonserver"):
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("no Triton for this platform outside NVIDIA's container: `spade serve` will not run", flush=True)
        return
    # Without dependencies: they serve a Python API that this project leaves unused, and they pin an old numpy.
    pip("install", "--quiet", "--no-deps", TRITON)


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/", timeout=10):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments], check=False
    )
    if done.returncode:
        sys.exit(f"error: `pip {' '.join(arguments)}` failed with exit status {done.returncode}; its reason is above")


if __name__ == "__main__":
    main()
