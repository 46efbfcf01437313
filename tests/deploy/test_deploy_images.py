"""The image files: linted by hadolint, and true to the project. `deploy/build-test` builds and runs the images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from serving.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy/images"
CPU, GPU, STAND_IN = (IMAGES / f"{name}.Containerfile" for name in ("cpu", "gpu", "gpu_stand_in"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest) of an image file, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last(path: Path, name: str) -> str:
    return [rest for instruction, rest in instructions(path) if instruction == name][-1]


@pytest.mark.parametrize("path", [CPU, GPU, STAND_IN], ids=["cpu", "gpu", "gpu_stand_in"])
def test_hadolint_has_no_complaint(path: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    if not hadolint.exists():
        pytest.skip("there is no hadolint for this platform")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_server_starts_without_rights(path: Path, tmp_path: Path) -> None:
    assert last(path, "USER") == "10001:10001"
    assert "/readyz" in last(path, "HEALTHCHECK")
    (tmp_path / "keys.txt").touch()
    command = [*json.loads(last(path, "ENTRYPOINT")), *json.loads(last(path, "CMD"))]
    assert command[0] == "spade"
    arguments = [one.replace("/etc/spade", str(tmp_path)) for one in command[1:]]
    group = main.make_context("spade", arguments)
    name, found, rest = main.resolve_command(group, [*group._protected_args, *group.args])
    assert name == "serve"
    assert found is not None
    found.make_context("serve", rest)  # raises for an unknown option


@pytest.mark.parametrize("path", [CPU, GPU], ids=["cpu", "gpu"])
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for instruction, rest in instructions(path):
        if instruction == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source == "." or any(source == one or source.startswith(f"{one}/") for one in kept)
    scikit = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]
    needed = {*scikit["wheel"]["packages"], "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert needed <= set(kept)


def test_versions_are_those_of_the_installation() -> None:
    install = (ROOT / "scripts/install.py").read_text()
    triton = re.search(r'TRITON = "(.+)"', install)
    assert triton is not None
    assert triton[1] in CPU.read_text()
    assert triton[1] in STAND_IN.read_text()


def test_packages_of_the_gpu_images_are_locked() -> None:
    """What the image files name by version is what uv.lock names, where it names it."""
    locked = {one["name"]: one["version"] for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    named = re.findall(r"(pycuda|nvidia-c[\w-]+|nvidia-nvvm)==([\w.]+)", GPU.read_text() + STAND_IN.read_text())
    assert {"pycuda", "nvidia-cuda-nvcc"} <= {name for name, _ in named}
    assert {name: version for name, version in named if name in locked and locked[name] != version} == {}


def test_what_the_cpu_image_locks_holds_no_pytorch_and_a_hash_of_every_file() -> None:
    packages = {one["name"]: one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    waiting, seen = [("spade-serve", "otel")], set[str]()
    while waiting:
        name, *extras = waiting.pop()
        package = packages[name]
        optional = package.get("optional-dependencies", {})
        found = [*package.get("dependencies", []), *(one for extra in extras for one in optional[extra])]
        waiting += [(one["name"], *one.get("extra", [])) for one in found if one["name"] not in seen]
        seen |= {one["name"] for one in found}
    assert {"numpy", "fastapi", "grpcio", "opentelemetry-sdk"} <= seen
    assert not [name for name in seen if name.startswith(("torch", "nvidia"))]
    for name in seen:
        files = [packages[name].get("sdist"), *packages[name].get("wheels", [])]
        assert all(file["hash"].startswith("sha256:") for file in files if file), name


def test_trimming_leaves_what_a_server_runs(tmp_path: Path) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / f"lib/python{python}/site-packages"
    stubs = "pytriton/tritonserver/python_backend_stubs"
    kept = [
        f"{stubs}/{python}/triton_python_backend_stub",
        f"nvidia_pytriton.libs/libpython3-0a.{sys.version_info.minor}.so.1.0",
        "nvidia_pytriton.libs/libtritonserver-0a.so",
        "numpy/core.py",
    ]
    gone = [
        f"{stubs}/3.8/triton_python_backend_stub",
        "nvidia_pytriton.libs/libpython3-0a.8.so.1.0",
        "numpy/core/tests/test_a.py",
        "pip/__init__.py",
    ]
    for name in kept + gone:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    subprocess.run([shutil.which("sh") or "sh", IMAGES / "trim", tmp_path], check=True)
    assert sorted(str(one.relative_to(site)) for one in site.rglob("*") if one.is_file()) == sorted(kept)
