"""The client's own package: built, installed where only NumPy and tritonclient are, and used on a real server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from served import blocks, png

from serving.client.client import Client
from serving.triton.server import Server

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("torch", "PIL", "kernels", "spade_core", "serving.triton", "serving.engines")

SEND = """
import hashlib, importlib, json, sys
from pathlib import Path
import numpy as np
from serving.client import Client

found = []
for name in json.loads(sys.argv[4]):
    try:
        importlib.import_module(name)
        found.append(name)
    except ModuleNotFoundError:
        pass
with Client(sys.argv[1]) as client:
    result = client.synthesize(np.load(sys.argv[2]), seed=7)
    files = client.synthesize_image([Path(sys.argv[3]).read_bytes()], seed=7).images
    image = result.images.tobytes()
    print(json.dumps([found, client.info().preset, [hashlib.sha256(data).hexdigest() for data in (image, *files)]]))
"""


def project(path: str) -> dict[str, object]:
    values: dict[str, object] = tomllib.loads((ROOT / path).read_text())["project"]
    return values


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(ROOT / "client")], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel and what the wheel requires, linked from this environment."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    required = tmp_path_factory.mktemp("required")
    for name in (str(line) for line in project("client/pyproject.toml")["dependencies"]):  # type: ignore[attr-defined]
        for found in closure(Requirement(name), {}):
            link(found, required)
    packages = next((home / "lib").glob("python3*/site-packages"))
    (packages / "required.pth").write_text(f"{required}\n")
    interpreter = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(interpreter)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    return interpreter


def closure(wanted: Requirement, seen: dict[str, Distribution]) -> Iterator[Distribution]:
    """The distribution that a requirement names, and all that the distribution requires here, extras included."""
    key = str(wanted)
    if key in seen:
        return
    found = seen[key] = distribution(wanted.name)
    yield found
    for line in found.requires or ():
        needed = Requirement(line)
        extras = wanted.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield from closure(needed, seen)


def link(found: Distribution, folder: Path) -> None:
    """Link a distribution's files and folders into `folder`."""
    for name in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
        if name != "__pycache__" and not (folder / name).exists():
            (folder / name).symlink_to(Path(str(found.locate_file(name))))


def test_the_wheel_has_the_files_of_the_client_only(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    client = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving" / "client").glob("*.py")}
    assert packed == {"serving/__init__.py", "serving/protocol.py", *client}
    for name in packed:
        assert zipfile.ZipFile(wheel).read(name) == (ROOT / name).read_bytes()


def test_both_packages_have_one_version_and_the_same_requirements() -> None:
    client, whole = project("client/pyproject.toml"), project("pyproject.toml")
    assert client["version"] == whole["version"]
    assert set(client["dependencies"]) <= set(whole["dependencies"])  # type: ignore[call-overload]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_package_sends_requests_without_torch(
    demo_server: Server, python: Path, tmp_path: Path, protocol: str
) -> None:
    maps, url = blocks(2, count=2), getattr(demo_server, f"{protocol}_url")
    np.save(tmp_path / "maps.npy", maps)
    (tmp_path / "map.png").write_bytes(png(maps[0]))
    arguments = [url, str(tmp_path / "maps.npy"), str(tmp_path / "map.png"), json.dumps(ABSENT)]
    done = subprocess.run(
        [str(python), "-I", "-c", SEND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found, preset, hashes = json.loads(done.stdout)
    assert found == []
    assert preset == "demo"
    with Client(url) as client:
        images = client.synthesize(maps, seed=7).images.tobytes()
        expected = [images, *client.synthesize_image([png(maps[0])], seed=7).images]
    assert hashes == [hashlib.sha256(data).hexdigest() for data in expected]
