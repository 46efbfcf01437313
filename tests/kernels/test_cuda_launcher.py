"""The launch of a kernel without PyTorch: its name, grid and arguments."""

from __future__ import annotations

import importlib.util

import pytest

from kernels.cuda.host.launcher import ModulateCodebook, plain_launch
from kernels.cuda.host.library import CudaError
from kernels.cuda.host.toolkit import compile_ptx


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 64, 256, 256), (64, 64, 4096, 4096), (2, 1040, 6, 10)])
@pytest.mark.parametrize("shift", [0, 1])
def test_launches_are_within_cudas_limits(layout: str, dtype: str, shape: tuple[int, ...], shift: int) -> None:
    launch = plain_launch(shape, dtype, layout, rows=11, shift=shift, leaky=True)
    assert 1 <= launch.grid[0] <= 2**31 - 1
    assert launch.grid[1:] == (1, 1)
    threads = launch.block[0] * launch.block[1]
    assert 1 <= threads <= 256
    assert layout == "nhwc" or threads == 256
    assert launch.sizes == (shape[0], shape[2], shape[3], shape[1], 11, shift, 1)


def test_kernels_are_in_the_ptx() -> None:
    ptx = compile_ptx("modulate_codebook")
    for layout in ("nchw", "nhwc"):
        launch = plain_launch((1, 8, 4, 4), "float16", layout, rows=2, shift=0, leaky=True)
        assert f".visible .entry {launch.kernel}(" in ptx


def test_sizes_that_cannot_be_launched_are_named() -> None:
    with pytest.raises(CudaError, match=r"even H and W for shift 1, but got \[1, 8, 5, 4\] with shift 1"):
        plain_launch((1, 8, 5, 4), "float16", "nhwc", rows=2, shift=1, leaky=True)


def test_without_pycuda_the_error_says_what_to_install() -> None:
    if importlib.util.find_spec("pycuda") is not None:
        pytest.skip("PyCUDA is installed")
    with pytest.raises(CudaError, match=r"expected PyCUDA but it cannot be imported.*pip install -e '\.\[gpu\]'"):
        ModulateCodebook()
