"""Programs for the native executor: a step is one kernel and its arguments, and a program runs steps in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, isa_number
from kernels.layouts import BLOCK, Array, aligned_empty
from kernels.native import native
from kernels.rectangles import Rectangle


class StepError(ValueError):
    """Arguments that a kernel cannot take; the message names the value and what the kernel expects."""


def _record_dtype(fields: Sequence[tuple[str, int, str]]) -> np.dtype[Any]:
    """The C struct spade_step with one kernel's arguments, as a NumPy record of (name, offset, format) fields."""
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


# ---- Steps ----


@dataclass(frozen=True, eq=False)
class Step:
    """One step.

    Attributes:
        kind: name of the kernel.
        record: the C struct, a record array of one.
        arrays: every object whose memory the struct points to, kept alive by the step.
    """

    kind: str
    record: npt.NDArray[np.void]
    arrays: tuple[Array | Entries, ...]


@dataclass(frozen=True, eq=False)
class Arguments:
    """Checked arguments of a kernel by the names of its C struct.

    Attributes:
        arrays: arrays of the pointer fields; None is a null pointer.
        numbers: values of the number fields.
        entries: entries whose addresses are among the arrays; a step keeps them and their tables alive.
    """

    arrays: Mapping[str, Array | None]
    numbers: Mapping[str, float]
    entries: tuple[Entries, ...] = ()

    def prefixed(self, prefix: str) -> Arguments:
        """Return the same arguments with a prefix before every name."""
        arrays = {prefix + name: array for name, array in self.arrays.items()}
        return Arguments(arrays, {prefix + name: value for name, value in self.numbers.items()}, self.entries)

    def __or__(self, other: Arguments) -> Arguments:
        """Join the arguments of two structs whose names differ."""
        return Arguments(
            {**self.arrays, **other.arrays}, {**self.numbers, **other.numbers}, (*self.entries, *other.entries)
        )

    def step(self, kind: str, isa: Isa) -> Step:
        """Write the arguments into a step."""
        number, dtype = _KINDS[kind]
        record = np.zeros(1, dtype)
        record["kind"], record["isa"] = number, isa_number(isa)
        given = {name: array for name, array in self.arrays.items() if array is not None}
        for name, array in given.items():
            record[name] = array.ctypes.data
        for name, value in self.numbers.items():
            record[name] = value
        return Step(kind, record, (*given.values(), *self.entries))


def expect(op: str, name: str, array: Array, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise StepError unless an array is C-contiguous and has this dtype and shape."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StepError(
            f"[{op}] expected {name} as C-contiguous {np.dtype(dtype)} {list(shape)} "
            f"but got {'' if array.flags.c_contiguous else 'non-contiguous '}{array.dtype} {list(array.shape)}"
        )


def expect_rank(op: str, name: str, array: Array, rank: int) -> None:
    """Raise StepError unless an array has this number of axes and at least one element."""
    if array.ndim != rank or 0 in array.shape:
        raise StepError(
            f"[{op}] expected {name} with {rank} axes, none of them empty, but got a shape of {list(array.shape)}"
        )


def expect_shift(op: str, name: str, shift: int, height: int, width: int) -> None:
    """Raise StepError unless a shift is 0, or 1 for an even height and width."""
    if shift not in (0, 1) or (shift and (height % 2 or width % 2)):
        raise StepError(f"[{op}] expected {name} 0, or 1 with even sizes, but got {shift} for {height}x{width}")


@dataclass(frozen=True, eq=False)
class Entries:
    """Where the codebook entries of each image of a batch lie. A step reads these arrays each time it runs.

    Attributes:
        addresses: uint64 [N], addresses of T [CB, U5, 2, 32]: a whole table, or a run of rows of a table.
        rows: int64 [N], the rows of the whole table.
        blocks, dtype: CB and T.
        tables: the arrays that are kept alive.
    """

    addresses: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    blocks: int
    dtype: np.dtype[Any]
    tables: tuple[Array, ...] = ()

    @classmethod
    def of(cls, tables: Sequence[Array]) -> Entries:
        """Return the entries of images, each in a table T [CB, U5, 2, 32] or a run of its rows. Raises StepError."""
        blocks, dtype = tables[0].shape[0], tables[0].dtype
        rows = []
        for table in tables:
            shape, row_bytes = (blocks, *table.shape[1:2], 2, BLOCK), BLOCK * 2 * table.itemsize
            whole, rest = divmod(table.strides[0], row_bytes)
            if table.shape != shape or table.dtype != dtype or rest or not table[0].flags.c_contiguous:
                raise StepError(
                    f"[modulate] expected entries as {dtype} {[blocks, 'U5', 2, BLOCK]}, or rows of such a "
                    f"table, but got {table.dtype} {list(table.shape)} with strides {list(table.strides)}"
                )
            rows.append(whole)
        addresses = np.asarray([table.ctypes.data for table in tables], np.uint64)
        return cls(addresses, np.asarray(rows, np.int64), blocks, dtype, tuple(tables))


# ---- Programs ----

_EDGES = Rectangle._fields
RECTANGLES: Mapping[str, tuple[str, ...]] = {
    "modulate": _EDGES,
    "image": _EDGES,
    "conv": _EDGES,
    "modulated_conv": (*(f"conv_{edge}" for edge in _EDGES), *(f"shortcut_conv_{edge}" for edge in _EDGES)),
}
"""The fields that hold the rectangle of each kind of step that has one."""


class Program:
    """Steps in the memory that the executor reads. Must not be changed while it runs.

    Args:
        steps: the executor runs them in order.
        overlaps: for each step, how many of the steps right before it may still be running when it starts; None: 0.
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
        """Return a view of a step's arguments: `args(i)["rows"] = 7` changes what the next run does."""
        record: npt.NDArray[np.void] = self._memory[step].view(_KINDS[self.kinds[step]][1])
        return record

    def words(self, step: int, *fields: str) -> list[int]:
        """Return the positions of a step's arguments in `memory` seen as int64, for callers that set many quickly."""
        offsets = self.args(step).dtype.fields
        assert offsets is not None
        return [(step * native.STEP_BYTES + offsets[field][1]) // 8 for field in fields]

    def limit(self, step: int, rectangle: Rectangle) -> None:
        """Let a step of one image compute a rectangle of its output only, `EMPTY` for nothing. Raises StepError."""
        kind = self.kinds[step]
        if kind not in RECTANGLES:
            raise StepError(f"[program] expected a step out of {', '.join(RECTANGLES)} but got {kind}")
        args, prefix = self.args(step), "conv_" if kind == "modulated_conv" else ""
        n, height, width = (int(args[prefix + name][0]) for name in ("n", "height", "width"))
        top, left, bottom, right = rectangle
        if n != 1 or not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
            raise StepError(
                f"[{kind}] expected one image and a rectangle within {height}x{width} but got {n} images and "
                f"{rectangle}"
            )
        for field, edge in zip(RECTANGLES[kind], rectangle * 2, strict=False):
            args[field] = edge

    def replace(self, position: int, step: Step) -> None:
        """Replace one step by another step of any kind."""
        self._memory[position] = step.record.view(np.uint8)
        self._arrays[position] = step.arrays
        self.kinds = (*self.kinds[:position], step.kind, *self.kinds[position + 1 :])


class Pool:
    """Threads that run programs: the calling thread and `threads` - 1 of its own. One program runs at a time."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise StepError(f"[cpu] expected threads of 1 or more but got {threads}")
        self.threads = threads
        self.native = native.Pool(threads)

    def run(self, program: Program) -> dict[str, float]:
        """Run a program without the GIL and return the seconds of each kind of step.

        The result is the same bit for bit for any number of threads and, for one image, in any batch.
        """
        seconds = np.zeros(native.SECONDS)
        self.native.run(program.memory, seconds)
        return {name: float(seconds[kind]) for name, (kind, _) in _KINDS.items()}
