"""Finding `tritonserver`: on PATH first, then in the wheel, and what to install where neither can be used."""

from __future__ import annotations

import importlib.util
import re
import sys
import sysconfig
from pathlib import Path

import pytest
from served import FREE_PORTS, blocks

from serving.client.client import Client
from serving.triton import install as triton_install
from serving.triton.install import InstallError, find_libpython, find_tritonserver, make_backend_directory
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, serve

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def install_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The layout of NVIDIA's container, made of symlinks into this machine's Triton, with `tritonserver` on PATH."""
    real = find_tritonserver()
    binary = folder / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    # A script: resolving a symlink would end in the wheel.
    binary.write_text(f'#!/bin/sh\nexec "{real.binary}" "$@"\n')
    binary.chmod(0o755)
    make_backend_directory(real, folder / "backends")
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(map(str, real.libraries)))
    return binary


def test_tritonserver_on_path_is_used_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    binary = install_on_path(tmp_path, monkeypatch)
    assert find_tritonserver().binary == binary
    model = ModelOptions(tiny_weights, threads=1, decoders=1)
    labels = blocks(1, size=64, classes=8)
    with serve(ServeOptions(model, **FREE_PORTS)) as server, Client(server.http_url) as client:
        assert client.synthesize(labels, labels.astype("int32")).images.shape == (1, 64, 64, 3)


def test_a_stub_for_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = install_on_path(tmp_path, monkeypatch)
    stub = tmp_path / "backends" / "python" / "triton_python_backend_stub"
    stub.unlink()
    stub.write_bytes(b"\x7fELF libpython3.10.so.1.0")
    text = rf"expected a Triton stub for Python {re.escape(VERSION)} but .* built for Python 3\.10; run spade with"
    with pytest.raises(InstallError, match=text):
        find_tritonserver()
    stub.unlink()
    with pytest.raises(InstallError, match=f"since {binary} is first on PATH, but found no triton_python_backend_stub"):
        find_tritonserver()


def test_without_triton_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InstallError, match=r"found neither; run `pip install --no-deps nvidia-pytriton==0\.7\.0`"):
        find_tritonserver()


def test_without_libpython_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(triton_install, "_PYTHON", "3.99")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    with pytest.raises(InstallError, match=r"libpython3\.99\.so\.1\.0 .*`apt install libpython3\.99`"):
        find_libpython()


def test_the_backend_directory_is_symlinks_only(tmp_path: Path) -> None:
    install = find_tritonserver()
    root = make_backend_directory(install, tmp_path / "backends")
    entries = list((root / "python").iterdir())
    assert all(entry.is_symlink() for entry in entries)
    assert {entry.name for entry in entries} >= {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }
