"""The native program that computes the entries of patches: two steps for each norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from kernels.constants import HIDDEN
from kernels.isa import Form, Isa, input_dtype, isa_dtype, isa_forms
from kernels.layouts import BLOCK, aligned_empty, blocks, storage_dtype
from kernels.ops.codebook import Int8, choose_form, codebook
from kernels.ops.embed import embed
from kernels.program import Pool, Program, Step
from serving.engines.cpu.memory import ALIGNMENT, Arena, Block
from serving.engines.cpu.pack import PackedGenerator, PackedNorm
from spade_core.types import Int32

ACTV_BUFFERS = 3  # buffers of hidden rows; norms use them in turn


@dataclass(frozen=True)
class NormSteps:
    """The steps of one norm in the program.

    Attributes:
        level: resolution level of the norm.
        blocks: blocks of 32 channels.
        embed, codebook: positions of the steps' arguments in the program's memory; `EntryProgram.set` writes them.
    """

    level: int
    blocks: int
    embed: list[int]
    codebook: list[int]


class EntryProgram:
    """Computes the entries of patches. One program serves every call; `set` points it at a call's patches.

    Args:
        packed, isa: the norms' weights, and the ISA that the weights are packed for.
        pool: threads that run the program.
        memory: hands out the memory of hidden rows.

    Attributes:
        norms: the norms in the order of the blocks and their norms.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, pool: Pool, memory: Arena) -> None:
        self._packed, self._isa, self._pool, self._memory = packed, isa, pool, memory
        self._dtype, self._input_dtype = storage_dtype(isa_dtype(isa)), storage_dtype(input_dtype(isa))
        self._program, self.norms = self._write_program()
        self._words = self._program.memory.data.cast("q")

    def run(self) -> float:
        """Compute the entries of the patches that `set` was given. Returns the seconds."""
        return sum(self._pool.run(self._program).values())

    def set(self, patches: Sequence[tuple[Int32, Int32]], entries: Sequence[int], entry_rows: Sequence[int]) -> Block:
        """Point the program at patches3 and patches5 of each level and at the memory for each norm's entries.

        Returns the memory of the hidden rows, to be kept alive until the program has run. Computes in plain Python
        numbers: after an image the processor's caches hold none of NumPy's code, so the first calls of NumPy are slow.
        """
        levels = [(three.ctypes.data, len(three), five.ctypes.data, len(five)) for three, five in patches]
        actv_rows = 1 + max(rows3 for _, rows3, _, _ in levels)
        actv_bytes = -(-actv_rows * HIDDEN * self._input_dtype.itemsize // ALIGNMENT) * ALIGNMENT
        scratch = self._memory.take(ACTV_BUFFERS * actv_bytes)
        for i, norm in enumerate(self.norms):
            patches3, rows3, patches5, rows5 = levels[norm.level]
            actv, form = scratch.address + i % ACTV_BUFFERS * actv_bytes, self._form(rows5, rows3 + 1, norm.blocks)
            for word, value in zip(norm.embed, (patches3, rows3, actv), strict=True):
                self._words[word] = value
            values = (actv, rows3 + 1, patches5, rows5, entry_rows[i], entries[i], patches3, form)
            for word, value in zip(norm.codebook, values, strict=True):
                self._words[word] = value
        return scratch

    def _write_program(self) -> tuple[Program, list[NormSteps]]:
        """The program, and the positions of each norm's arguments in the program's memory.

        The embed of a norm stands before the codebook of the previous norm, so that both may run together. A codebook
        waits for its embed; an embed waits for the codebook that last read the embed's buffer.
        """
        norms = [(block.level, norm) for block in self._packed.blocks for norm in block.norms]
        of_norms = [self._steps(norm) for _, norm in norms]
        steps: list[Step] = []
        overlaps: list[int] = []
        embeds: list[int] = []
        books: list[int] = []
        for i in range(len(of_norms) + 1):
            if i < len(of_norms):
                awaited = books[i - ACTV_BUFFERS] if i >= ACTV_BUFFERS else -1
                embeds.append(len(steps))
                overlaps.append(len(steps) - awaited - 1)
                steps.append(of_norms[i][0])
            if i > 0:
                books.append(len(steps))
                overlaps.append(len(steps) - embeds[i - 1] - 1)
                steps.append(of_norms[i - 1][1])
        program = Program(steps, overlaps)
        return program, [
            NormSteps(
                level, blocks(norm.channels), program.words(of_embed, "patches", "rows", "out"),
                program.words(
                    of_book, "actv", "actv_rows", "patches", "rows", "entry_rows", "entries", "windows", "form"
                ),
            )
            for (level, norm), of_embed, of_book in zip(norms, embeds, books, strict=True)
        ]  # fmt: skip

    def _steps(self, norm: PackedNorm) -> tuple[Step, Step]:
        """The steps of a norm on a single patch, which check the shapes once. `_set` points the steps at real maps."""
        taps = self._packed.config.spade_kernel**2
        patches = np.zeros((1, taps), np.int32)
        int8 = None
        if norm.scale is not None and norm.interior is not None:
            int8 = Int8(norm.scale, patches, norm.interior)
        actv = aligned_empty((2, HIDDEN), self._input_dtype if int8 is None else np.uint8)
        entries = aligned_empty((blocks(norm.channels), 1, 2, BLOCK), self._dtype)
        return (
            embed(self._isa, norm.table, norm.shared_bias, patches, actv, relu=True, zero_row=True),
            codebook(self._isa, actv, patches, norm.weight, norm.bias, entries, form="gathered", int8=int8),
        )

    def _form(self, rows5: int, actv_rows: int, n_blocks: int) -> int:
        """Number of the faster form of a codebook."""
        forms = isa_forms(self._isa)
        form = forms[0]
        if len(forms) > 1:
            form = choose_form(self._isa, rows5, actv_rows, n_blocks=n_blocks, threads=self._pool.threads)
        return get_args(Form).index(form)
