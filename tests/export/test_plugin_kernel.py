"""The plugin's kernel, launched as the plugin describes, computes the ONNX function that the plugin replaces."""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.cuda.host.toolkit import INCLUDES

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "tests" / "kernels" / "cuda_emulator"


def constant(name: str) -> int:
    """A constant of export/tensorrt/plugin.py, read from the source, since importing needs TensorRT."""
    tree = ast.parse((ROOT / "export" / "tensorrt" / "plugin.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
    return int(ast.literal_eval(values[0]))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("plain") / "plain.so"
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    sources = [Path(__file__).with_name("plain_launch.cpp"), EMULATOR / "emulator.cpp"]
    sources += [ROOT / "kernels/cuda/host/error.cu"]
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", "-I", str(EMULATOR),
               *(f"-I{folder}" for folder in INCLUDES), "-x", "c++", *map(str, sources), "-o", str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(out))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("leaky", [0, 1])
@pytest.mark.parametrize(("n", "channels", "height", "width"), [(2, 5, 3, 7), (1, 40, 8, 9), (3, 32, 4, 8)])
def test_the_kernel_computes_the_function_of_the_onnx_file(
    library: Any, n: int, channels: int, height: int, width: int, leaky: int
) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((n, channels, height, width)).astype(np.float32)
    entries = random.standard_normal((11, 2 * channels)).astype(np.float32)
    index = random.integers(0, 11, (n, height, width)).astype(np.int32)
    index.ravel()[:4] = [11, 2**31 - 1, -1, -(2**31)]  # outside the table: the kernel reads the last row
    out = np.full_like(x, np.nan)
    tile, sizes = constant("TILE"), np.array([n, height, width, channels, 11, 0, leaky], np.int32)
    grid = n * -(-height * width // tile) * -(-channels // tile)
    status = library.launch_plain(
        grid, constant("THREADS"), pointer(x), pointer(entries), pointer(index), pointer(sizes), pointer(out)
    )
    assert status == 0
    index.ravel()[:4] = 10
    a, b = np.split(entries.astype(np.float64)[index].transpose(0, 3, 1, 2), 2, axis=1)
    expected = a * x + b
    if leaky:
        expected = np.where(expected > 0, expected, 0.2 * expected)
    bound = 4 * np.finfo(np.float32).eps * (np.abs(a * x) + np.abs(b))  # a product, a sum and a slope round once each
    assert not (np.abs(out - expected) > bound).any()
    assert not np.isnan(out).any()
