"""The plan of a batch on CUDA; `kernels.ops.plan.plan_numpy` is the specification, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kernels.cuda.host.library import CudaError, Library
from kernels.cuda.host.tensors import address, expect_shape, library_of, place_of


@dataclass(frozen=True)
class CudaLevel:
    """One level of a batch on the device; the fields of `kernels.ops.plan.Level` as views of the plan's memory."""

    patches3: Tensor
    patches5: Tensor
    index: Tensor


class CudaPlan:
    """Memory for the plans of batches of one shape. Call `find`, then `counts` (which waits), then `write`.

    Args:
        shape: (N, H, W) of the symbol maps.
        sizes: (h, w) of each level, at most 10.
        n_symbols: 1 .. 65535.
        kernel_size: k of SPADE's convs, 1, 3 or 5.

    Attributes:
        symbols: uint16 [N, H, W], the input. The caller must have checked that all are below n_symbols.
        index: int32 [positions], the indices of all levels one after the other; see `level_index`.
        offsets3, offsets5: int32 [levels * N + 1], the number of windows, over all levels, before each map.

    Raises CudaError for sizes that cannot be planned.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        sizes: Sequence[tuple[int, int]],
        n_symbols: int,
        kernel_size: int,
        device: torch.device,
        library: Library | None = None,
    ) -> None:
        self.sizes, self.kernel_size = list(sizes), kernel_size
        self.n = shape[0]
        self.symbols = torch.empty(shape, dtype=torch.uint16, device=device)
        self._library = library_of(self.symbols, library)
        self._numbers = {
            "levels": len(sizes), "n": self.n, "map_height": shape[1], "map_width": shape[2], "row_stride": shape[2],
            "n_symbols": n_symbols, "kernel_size": kernel_size, "height": [h for h, _ in sizes],
            "width": [w for _, w in sizes],
        }  # fmt: skip
        scratch_bytes = self._library.plan_scratch_bytes(**self._numbers)  # type: ignore[arg-type]
        self._scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=device)
        self._starts = [0]
        for height, width in sizes:
            self._starts.append(self._starts[-1] + self.n * height * width)
        self.index = torch.empty(self._starts[-1], dtype=torch.int32, device=device)
        self._offsets = torch.zeros((2, len(sizes) * self.n + 1), dtype=torch.int32, device=device)
        self.offsets3, self.offsets5 = self._offsets
        self._on_host = torch.zeros(self._offsets.shape, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._device = device
        self._read: torch.cuda.Event | None = None

    def find(self) -> None:
        """Plan `symbols`: fill index and offsets. Does not wait."""
        self._call("plan_find")

    def begin_read(self) -> None:
        """Start to copy the offsets to the host, after `find`. Later launches do not delay the copy."""
        self._on_host.copy_(self._offsets, non_blocking=True)
        if self._device.type == "cuda":
            self._read = torch.cuda.current_stream(self._device).record_event()

    def read_offsets(self) -> tuple[list[int], list[int]]:
        """offsets3 and offsets5 on the host, after `begin_read`. Waits for the copy: the only wait of a plan."""
        if self._read is not None:
            self._read.synchronize()
        three, five = self._on_host.tolist()
        return three, five

    def counts(self) -> tuple[list[int], list[int]]:
        """U3 and U5 of every level, after `find`. Waits for the device."""
        self.begin_read()
        three, five = (_differences(offsets[:: self.n]) for offsets in self.read_offsets())
        return three, five

    def write(
        self, patches3: Tensor, first3: Sequence[int], room3: Sequence[int], patches5: Tensor, first5: Sequence[int],
        room5: Sequence[int],
    ) -> None:  # fmt: skip
        """Write the tables of all levels, after `find`. Does not wait. Raises CudaError if a table is too short.

        Both tables are int32 [rows, k*k]. Level l takes room[l] rows from row first[l] on. Further rows are dropped;
        patches5 holds room3[l] in place of the number of a dropped row of patches3.
        """
        taps = self.kernel_size**2
        for name, table, first, room in (("patches3", patches3, first3, room3), ("patches5", patches5, first5, room5)):
            expect_shape("plan_write", name, table, (len(table), taps), torch.int32)
            needed = max(start + rows for start, rows in zip(first, room, strict=True))
            if len(table) < needed:
                raise CudaError(f"[plan_write] expected room for {needed} rows in {name} but got {len(table)}")
        self._call(
            "plan_write", patches3, patches5, patches3=address(patches3), patches5=address(patches5), first3=first3,
            room3=room3, first5=first5, room5=room5,
        )  # fmt: skip

    def level_index(self, level: int) -> Tensor:
        """int32 [N, h, w], rows of the level's patches5."""
        return self.index[self._starts[level] : self._starts[level + 1]].view(self.n, *self.sizes[level])

    def levels(self) -> list[CudaLevel]:
        """The levels with tables of exactly their size, after `find`. Waits for the device."""
        counts3, counts5 = self.counts()
        first3, first5 = prefix_sums(counts3), prefix_sums(counts5)
        taps = self.kernel_size**2
        patches3 = torch.empty((first3[-1], taps), dtype=torch.int32, device=self.index.device)
        patches5 = torch.empty((first5[-1], taps), dtype=torch.int32, device=self.index.device)
        self.write(patches3, first3[:-1], counts3, patches5, first5[:-1], counts5)
        return [
            CudaLevel(patches3[first3[i] : first3[i + 1]], patches5[first5[i] : first5[i + 1]], self.level_index(i))
            for i in range(len(self.sizes))
        ]

    def _call(self, op: str, *tables: Tensor, **arguments: object) -> None:
        place = place_of(op, self.symbols, *tables)
        self._library.call(
            op, place, symbols=address(self.symbols), index=address(self.index),
            offsets3=address(self.offsets3), offsets5=address(self.offsets5), scratch=address(self._scratch),
            scratch_bytes=self._scratch.numel(), **self._numbers, **arguments,  # type: ignore[arg-type]
        )  # fmt: skip


def prefix_sums(counts: Sequence[int]) -> list[int]:
    """The sums of the first 0, 1, 2, .. all counts."""
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums


def _differences(sums: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(sums)]
