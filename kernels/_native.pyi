"""The functions of kernels/binding.cpp, for type checkers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_SYMBOLS: int
MAX_PIXELS: int

def first_bad_symbol(symbols: npt.NDArray[np.uint16], n_symbols: int) -> int: ...
def rebase(
    rows: npt.NDArray[np.int32], outside: int, offset: int, new_outside: int, out: npt.NDArray[np.int32]
) -> None: ...
def symbols(
    labels: npt.NDArray[np.uint8],
    instances: npt.NDArray[np.int32] | None,
    classes: int,
    dont_care_id: int,
    out: npt.NDArray[np.uint16],
) -> bool: ...

ISAS: tuple[str, ...]
HIDDEN: int
STEP_BYTES: int
STEP_ARGS_OFFSET: int
STEP_KINDS: dict[str, tuple[int, list[tuple[str, int, str]]]]
SECONDS: int

def isa_supported(isa: int) -> bool: ...
def codebook_packed_bytes(isa: int, taps: int, channels: int) -> int: ...
def codebook_pack(
    isa: int, weight: npt.NDArray[np.float32], taps: int, channels: int, packed: npt.NDArray[np.uint8]
) -> None: ...
def codebook_int8_packed_bytes(taps: int, channels: int) -> int: ...
def codebook_int8_pack(
    weight: npt.NDArray[np.int8], taps: int, channels: int, packed: npt.NDArray[np.uint8]
) -> None: ...
def conv_packed_bytes(isa: int, out_channels: int, in_channels: int, kernel_size: int) -> int: ...
def conv_pack(
    isa: int,
    weight: npt.NDArray[np.float32],
    out_channels: int,
    in_channels: int,
    kernel_size: int,
    packed: npt.NDArray[np.uint8],
) -> None: ...
def conv_peak(isa: int, count: int) -> int: ...

class Pool:
    def __init__(self, threads: int) -> None: ...
    def run(self, steps: npt.NDArray[np.uint8], seconds: npt.NDArray[np.float64]) -> None: ...

def plan_maps(
    symbols: npt.NDArray[np.uint16],
    sizes: Sequence[tuple[int, int]],
    n_symbols: int,
    kernel_size: int,
    pool: Pool | None,
) -> list[list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]]]: ...
def volume_windows(
    ids: npt.NDArray[np.int32], outside: int, kernel_size: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]: ...

class PatchTable:
    def __init__(self, most: int, outside: int, kernel_size: int) -> None: ...
    def horizon(self, bound: int) -> int: ...
    def begin(self, bound: int) -> None: ...
    def forget(self) -> None: ...
    def place(
        self,
        patches3: npt.NDArray[np.int32],
        patches5: npt.NDArray[np.int32],
        index: npt.NDArray[np.int32],
    ) -> int: ...
    def new_patches(self, taps: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]: ...
