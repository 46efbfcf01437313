"""Programs for the native executor: a step is one kernel and its arguments, a program runs steps in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa
from kernels.layouts import BLOCK, Array, aligned_empty
from kernels.native import native


class StepError(ValueError):
    """Arguments that a kernel cannot take; the message holds the value and what was expected."""


def _record_dtype(fields: Sequence[tuple[str, int, str]]) -> np.dtype[Any]:
    names, offsets, formats = zip(*fields, strict=True)
    start = native.STEP_ARGS_OFFSET
    layout = {
        "names": ["kind", "isa", "overlaps", *names],
        "formats": ["i8", "i8", "i8", *formats],
        "offsets": [0, 8, 16, *(start + offset for offset in offsets)],
        "itemsize": native.STEP_BYTES,
    }
    return np.dtype(layout)  # type: ignore[call-overload, no-any-return]


_KINDS = {name: (kind, _record_dtype(fields)) for name, (kind, fields) in native.STEP_KINDS.items()}


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its kind, its arguments as the C struct (a record array of one), and what holds their memory."""

    kind: str
    record: npt.NDArray[np.void]
    arrays: tuple[Array | Entries, ...]


class Program:
    """Steps in the executor's memory. Not changed while it runs.

    Args:
        steps: run one after the other.
        overlaps: how many of the steps right before each may still run when it starts, one number per step; None: none.
    """

    def __init__(self, steps: Sequence[Step], overlaps: Sequence[int] | None = None) -> None:
        self.kinds = tuple(step.kind for step in steps)
        self._memory = aligned_empty((len(steps), native.STEP_BYTES), np.uint8)
        self._arrays: list[tuple[Array | Entries, ...]] = [step.arrays for step in steps]
        for memory, step in zip(self._memory, steps, strict=True):
            memory[:] = step.record.view(np.uint8)
        if overlaps is not None:
            for i, number in enumerate(overlaps):
                self.args(i)["overlaps"] = number

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """All steps as the executor reads them, uint8 [bytes]."""
        return self._memory.reshape(-1)

    def args(self, step: int) -> npt.NDArray[np.void]:
        """The arguments of a step, a view: `args(i)["rows"] = 7` changes what the next run does."""
        record: npt.NDArray[np.void] = self._memory[step].view(_KINDS[self.kinds[step]][1])
        return record

    def words(self, step: int, *fields: str) -> list[int]:
        """Where arguments of a step are in `memory` as int64, for those who set many in a short time."""
        offsets = self.args(step).dtype.fields
        assert offsets is not None
        return [(step * native.STEP_BYTES + offsets[field][1]) // 8 for field in fields]

    def replace(self, position: int, step: Step) -> None:
        """Put another step of any kind in place of one."""
        self._memory[position] = step.record.view(np.uint8)
        self._arrays[position] = step.arrays
        self.kinds = (*self.kinds[:position], step.kind, *self.kinds[position + 1 :])


class Pool:
    """Threads that run programs: the caller's and `threads` - 1 of its own. One program at a time; others wait."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise StepError(f"[cpu] expected threads of 1 or more but got {threads}")
        self.threads = threads
        self.native = native.Pool(threads)

    def run(self, program: Program) -> dict[str, float]:
        """As `run`."""
        seconds = np.zeros(native.SECONDS)
        self.native.run(program.memory, seconds)
        return {name: float(seconds[kind]) for name, (kind, _) in _KINDS.items()}


def run(program: Program, pool: Pool) -> dict[str, float]:
    """Run a program without the GIL and return the seconds of each kind of step.

    The result depends neither on the number of threads nor, for one image, on the batch, bit for bit.
    """
    return pool.run(program)


def make_step(kind: str, isa: Isa, arrays: Mapping[str, Array | None], **numbers: float) -> Step:
    number, dtype = _KINDS[kind]
    record = np.zeros(1, dtype)
    record["kind"], record["isa"] = number, get_args(Isa).index(isa)
    kept = []
    for name, array in arrays.items():
        if array is not None:
            record[name] = array.ctypes.data
            kept.append(array)
    for name, value in numbers.items():
        record[name] = value
    return Step(kind, record, tuple(kept))


def expect(op: str, name: str, array: Array, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StepError(
            f"[{op}] expected {name} as C-contiguous {np.dtype(dtype)} {list(shape)} "
            f"but got {'' if array.flags.c_contiguous else 'non-contiguous '}{array.dtype} {list(array.shape)}"
        )


def expect_rank(op: str, name: str, array: Array, rank: int) -> None:
    if array.ndim != rank or 0 in array.shape:
        raise StepError(
            f"[{op}] expected {name} with {rank} axes, none of them empty, but got a shape of {list(array.shape)}"
        )


@dataclass(frozen=True, eq=False)
class Entries:
    """Where the entries of each image of a modulation lie. A program that holds this reads it when it runs.

    Attributes:
        addresses: uint64 [N], of each image T [CB, U5, 2, 32]: a whole table, or a run of the rows of one.
        rows: int64 [N], of the whole table.
        blocks, dtype: CB and T.
        tables: what is kept alive.
    """

    addresses: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    blocks: int
    dtype: np.dtype[Any]
    tables: tuple[Array, ...] = ()

    @classmethod
    def of(cls, tables: Sequence[Array]) -> Entries:
        """The entries of each image in a table, or a run of rows of one."""
        blocks, dtype = tables[0].shape[0], tables[0].dtype
        rows = []
        for table in tables:
            shape, inner = (blocks, *table.shape[1:2], 2, BLOCK), BLOCK * 2 * table.itemsize
            whole, rest = divmod(table.strides[0], inner)
            if table.shape != shape or table.dtype != dtype or rest or not table[0].flags.c_contiguous:
                raise StepError(
                    f"[modulate] expected entries as {dtype} {[blocks, 'U5', 2, BLOCK]}, or rows of such a "
                    f"table, but got {table.dtype} {list(table.shape)} with strides {list(table.strides)}"
                )
            rows.append(whole)
        addresses = np.asarray([table.ctypes.data for table in tables], np.uint64)
        return cls(addresses, np.asarray(rows, np.int64), blocks, dtype, tuple(tables))
