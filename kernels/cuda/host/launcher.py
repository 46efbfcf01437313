"""One kernel without PyTorch: nvcc compiles its PTX, and PyCUDA launches it.

    launcher = ModulateCodebook()
    out = launcher(x, entries, index, shift=1)  # NumPy in and out, or PyCUDA's arrays on the device

Needs `pip install -e '.[gpu]'` in the checkout, an NVIDIA driver and nvcc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cuda.host.library import CudaError
from kernels.cuda.host.toolkit import compile_ptx

THREADS = 256
_NAMES = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16"}


@dataclass(frozen=True)
class PlainLaunch:
    """The launch of a `_plain` kernel of modulate_codebook.cu, for any driver code.

    Attributes:
        kernel: name in the PTX.
        grid, block: numbers of blocks and of threads.
        sizes: 32-bit arguments between the pointers of the inputs (x, entries, index) and the pointer of the output.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    sizes: tuple[int, ...]


def plain_launch(shape: Sequence[int], dtype: str, layout: str, *, rows: int, shift: int, leaky: bool) -> PlainLaunch:
    """The launch of modulate_codebook for an output [N, C, H, W] and `rows` entries.

    The kernels go through the output in strides, so the grid may be any; this one fills the device. Raises CudaError
    for a size that the kernels cannot take.
    """
    n, channels, height, width = shape
    if min(shape) < 1 or n * height * width > 1 << 30 or (shift and (height % 2 or width % 2)):
        raise CudaError(
            f"[modulate_codebook] expected N, C, H, W of at least 1, at most {1 << 30} pixels, and even H and W for "
            f"shift 1, but got {list(shape)} with shift {shift}"
        )
    kernel = f"spade_modulate_codebook_{layout}_{dtype}_plain"
    sizes = (n, height, width, channels, rows, shift, int(leaky))
    if layout == "nchw":
        tiles = n * -(-height * width // 32) * -(-channels // 32)
        return PlainLaunch(kernel, (min(tiles, 1 << 20), 1, 1), (THREADS, 1, 1), sizes)
    wide = 4 if dtype == "float32" else 8
    vectors = channels // wide if channels % wide == 0 else channels
    across = min(vectors, THREADS)
    groups = n * height * width // 4 if shift else -(-n * height * width // 4)
    down = max(1, min(groups, THREADS // across))
    return PlainLaunch(kernel, (min(-(-groups // down), 1 << 20), 1, 1), (across, down, 1), sizes)


class ModulateCodebook:
    """out = lrelu(a[index] x + b[index]) of NHWC maps, in PyCUDA's current context or, without one, in a new one.

    Raises CudaError where PyCUDA cannot be imported, and ToolkitError where there is no nvcc.
    """

    def __init__(self) -> None:
        try:
            import pycuda.autoprimaryctx
            import pycuda.driver
        except ImportError as error:
            raise CudaError(
                f"[cuda] expected PyCUDA but it cannot be imported: {error}; pip install -e '.[gpu]' in the checkout"
            ) from error
        self._module = pycuda.driver.module_from_buffer(compile_ptx("modulate_codebook").encode() + b"\0")

    def __call__(
        self,
        x: npt.NDArray[Any],
        entries: npt.NDArray[Any],
        index: npt.NDArray[np.int32],
        *,
        shift: int = 0,
        leaky: bool = True,
    ) -> npt.NDArray[Any]:
        """x [N, H >> shift, W >> shift, C], entries [U, 2C], float32 or float16, index [N, H, W] -> [N, H, W, C]."""
        import pycuda.gpuarray as gpuarray

        n, height, width = index.shape
        launch = plain_launch(
            (n, x.shape[3], height, width),
            _NAMES[np.dtype(x.dtype)],
            "nhwc",
            rows=len(entries),
            shift=shift,
            leaky=leaky,
        )
        inputs = [gpuarray.to_gpu(np.ascontiguousarray(array)) for array in (x, entries, index)]
        out = gpuarray.empty((n, height, width, x.shape[3]), x.dtype)
        kernel = self._module.get_function(launch.kernel)
        pointers = [array.gpudata for array in (*inputs, out)]
        kernel(*pointers[:3], *map(np.int32, launch.sizes), pointers[3], grid=launch.grid, block=launch.block)
        result: npt.NDArray[Any] = out.get()
        return result
