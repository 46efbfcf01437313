"""Find `tritonserver` on this machine, and the files that this Python needs to run models in Triton."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
_IN_WHEEL = {"0.7.0": "2.51.0"}  # nvidia-pytriton: the core of the server that it carries
_STUB = "triton_python_backend_stub"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class InstallError(RuntimeError):
    """No `tritonserver` can be used; the message says what to install."""


@dataclass(frozen=True)
class TritonInstall:
    """A `tritonserver` that this interpreter can run Python models in.

    Attributes:
        binary: the `tritonserver` program.
        python_backend: folder of the Python backend. Nothing is written to the folder.
        stub: the program that hosts a Python model, built for this interpreter's version.
        libraries: folders for LD_LIBRARY_PATH.
        version: of the server's core, such as 2.51.0; empty where it is not known.
    """

    binary: Path
    python_backend: Path
    stub: Path
    libraries: tuple[Path, ...]
    version: str = ""


def find_tritonserver() -> TritonInstall:
    """The `tritonserver` on PATH, or else in the wheel. Raises InstallError."""
    on_path = shutil.which("tritonserver")
    return _from_path(Path(on_path)) if on_path else _from_wheel()


def make_backend_directory(install: TritonInstall, root: Path) -> Path:
    """Make a `--backend-directory` at `root`: symlinks into the install, and the stub for this interpreter."""
    python = root / "python"
    python.mkdir(parents=True)
    for source in install.python_backend.iterdir():
        if source.name not in (_STUB, "__pycache__"):
            (python / source.name).symlink_to(source)
    (python / _STUB).symlink_to(install.stub)
    return root


def _from_path(binary: Path) -> TritonInstall:
    root = binary.resolve().parent.parent
    backend = root / "backends" / "python"
    stub = backend / _STUB
    if not stub.is_file():
        raise InstallError(
            f"[serve] expected Triton's Python backend in {backend}, since {binary} is first on PATH, but found no "
            f"{_STUB} there; install a Triton with that backend, or take it off PATH and "
            f"`pip install --no-deps {WHEEL}`"
        )
    built_for = _stub_python(stub)
    if built_for != _PYTHON:
        raise InstallError(
            f"[serve] expected a Triton stub for Python {_PYTHON} but {stub} was built for Python {built_for}; "
            f"run spade with Python {built_for}, or take this tritonserver off PATH and `pip install --no-deps {WHEEL}`"
        )
    written = root / "TRITON_VERSION"  # in NVIDIA's containers
    version = written.read_text(encoding="utf-8").strip() if written.is_file() else ""
    return TritonInstall(binary.resolve(), backend, stub, (find_libpython().parent, root / "lib"), version)


def _from_wheel() -> TritonInstall:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise InstallError(
            "[serve] expected `tritonserver` on PATH or in the wheel but found neither; "
            f"run `pip install --no-deps {WHEEL}`, or use NVIDIA's Triton container"
        )
    package = Path(spec.submodule_search_locations[0])
    root = package / "tritonserver"
    stubs = root / "python_backend_stubs"
    stub = stubs / _PYTHON / _STUB
    if not stub.is_file():
        there = sorted(folder.name for folder in stubs.glob("*"))
        raise InstallError(
            f"[serve] expected a Triton stub for Python {_PYTHON} in {stubs} but found {there}; "
            "run spade with one of these Python versions"
        )
    libraries = (find_libpython().parent, package.parent / "nvidia_pytriton.libs")
    version = _IN_WHEEL.get(importlib.metadata.version("nvidia-pytriton"), "")
    return TritonInstall(root / "bin" / "tritonserver", root / "backends" / "python", stub, libraries, version)


def _stub_python(stub: Path) -> str:
    """The Python version that a stub is linked to, read from the name of the library in the stub."""
    found = re.search(rb"libpython(\d+\.\d+)\.so", stub.read_bytes())
    return found.group(1).decode() if found else "unknown"


def find_libpython() -> Path:
    """The shared library of this interpreter, which the stub loads. Raises InstallError."""
    name = f"libpython{_PYTHON}.so.1.0"
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [
        libdir,
        libdir / multiarch,
        Path(sys.base_prefix) / "lib",
        Path("/usr/lib") / multiarch,
        Path("/usr/lib64"),
    ]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    loaded = _loaded_by_name(name)
    if loaded is None:
        raise InstallError(
            f"[serve] expected the shared library {name} but found it in none of "
            f"{', '.join(map(str, dict.fromkeys(folders)))}; install it: "
            f"Debian and Ubuntu `apt install libpython{_PYTHON}`, "
            f"Fedora `dnf install python{_PYTHON}-libs`, "
            f"pyenv `PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {_PYTHON}`"
        )
    return loaded


def _loaded_by_name(name: str) -> Path | None:
    """The path where the dynamic linker finds a library, or None."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    found = re.search(rf"\S+/{re.escape(name)}", Path("/proc/self/maps").read_text(encoding="utf-8"))
    return Path(found.group()) if found else None
