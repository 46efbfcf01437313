"""The functions of kernels/binding.cpp, for type checkers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_SYMBOLS: int
MAX_PIXELS: int

def plan_map(
    symbols: npt.NDArray[np.uint16], sizes: Sequence[tuple[int, int]], n_symbols: int, kernel_size: int
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]]: ...
def first_bad_symbol(symbols: npt.NDArray[np.uint16], n_symbols: int) -> int: ...
def rebase(
    rows: npt.NDArray[np.int32], outside: int, offset: int, new_outside: int, out: npt.NDArray[np.int32]
) -> None: ...
