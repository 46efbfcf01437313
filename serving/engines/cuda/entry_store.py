"""The patch store on the device: what sessions read and fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.cuda.codebook.codebook import Codebook, Embed, codebook, embed
from kernels.cuda.host.library import Library
from kernels.cuda.plan.plan import CudaPlan
from kernels.ops.plan import Level
from kernels.rectangles import Rectangle
from serving.engines.cuda.weights import CudaNorm, CudaWeights
from serving.engines.patch_store import NewPatches, PatchStore, is_stale, plan_part
from spade_core.types import Symbols


class EntryStore(PatchStore):
    """The patch store, with the entries of each norm on the device.

    Args:
        weights, library: the norms, and the kernels that compute their entries.
        limit: bytes.

    Attributes:
        tables: T [slots, 2C] for each norm, in the order of the blocks and their norms.
    """

    def __init__(self, weights: CudaWeights, library: Library, limit: int) -> None:
        self._norms = [(norm, block.level) for block in weights.blocks for norm in block.norms]
        itemsize, device = weights.dtype.itemsize, weights.device
        super().__init__([(level, 2 * n.channels * itemsize) for n, level in self._norms], weights.config, limit)
        self._config, self._library, self._device = weights.config, library, device
        # A table has a row even without slots, since an index that names no row stands for the last.
        self.tables = [
            torch.zeros((max(self.slots[level], 1), 2 * norm.channels), dtype=weights.dtype, device=device)
            for norm, level in self._norms
        ]

    def place_whole(self, plan: CudaPlan, oldest: list[int]) -> list[int] | None:
        """Give the patches of the one map of a plan, after `find`, their slots; replace the plan's index by slots.

        `oldest` becomes, for each level, the lowest position of a patch. Returns the number of patches of each level;
        None, with nothing changed, where the store cannot hold so many. Waits for the plan. `compute` must follow.
        """
        levels = plan.levels()
        rows = [len(level.patches5) for level in levels]
        if not self.takes(rows):
            return None
        self.begin(rows)
        oldest[:] = []
        for number, level in enumerate(levels):
            patches3, patches5 = level.patches3.cpu().numpy(), level.patches5.cpu().numpy()
            slots = np.arange(len(patches5), dtype=np.int32)
            oldest.append(self.place(number, _level(patches3, patches5, slots), slots))
            index = plan.level_index(number)
            index.copy_(self._upload(slots)[index.long()])
        return rows

    def place_part(
        self, symbols: Symbols, changed: Sequence[Rectangle], index: Sequence[Tensor], oldest: list[int]
    ) -> bool:  # fmt: skip
        """Plan areas of a map again, and give their patches slots in `index`, int32 [1, h, w] for each level.

        Args:
            symbols: uint16 [H, W], the map now.
            changed: for each level, the area whose patches may have changed.
            oldest: for each level, the lowest position of a patch of the map before; changed in place.

        Returns False, with nothing changed, where the store no longer holds the map before or cannot take the new one.
        `compute` must follow otherwise.
        """
        parts = [
            plan_part(symbols, tuple(of_level.shape[1:]), area, self._config)
            for of_level, area in zip(index, changed, strict=True)
        ]
        bounds = [0 if part is None else len(part[0].patches5) for part in parts]
        if not self.takes(bounds) or is_stale(oldest, self.horizons(bounds)):
            return False
        self.begin(bounds)
        for number, (part, area) in enumerate(zip(parts, changed, strict=True)):
            if part is not None:
                plan, slots = part
                oldest[number] = min(oldest[number], self.place(number, plan, slots))
                rows, columns = area.slices
                index[number][0, rows, columns] = self._upload(slots)
        return True

    def compute(self) -> int:
        """Compute the entries of the patches that were new since `begin`; return their number. Does not wait."""
        patches = self.new_patches()
        found = [len(of.patches5) for of in patches]
        if any(found):
            on_device = [tuple(map(self._upload, (of.patches3, of.patches5))) if n else None
                         for of, n in zip(patches, found, strict=True)]  # fmt: skip
            pairs = [
                self._problems(norm, table, tensors, patches[level])
                for (norm, level), table in zip(self._norms, self.tables, strict=True)
                if (tensors := on_device[level]) is not None
            ]
            embed(*(one for one, _ in pairs), library=self._library)
            codebook(*(one for _, one in pairs), library=self._library)
        self.done()
        return sum(found)

    def _problems(
        self, norm: CudaNorm, table: Tensor, patches: tuple[Tensor, ...], new: NewPatches
    ) -> tuple[Embed, Codebook]:  # fmt: skip
        patches3, patches5 = patches
        actv = torch.empty((len(patches3) + 1, HIDDEN), dtype=table.dtype, device=table.device)
        entries = table[new.slot : new.slot + len(patches5)]
        return (
            Embed(norm.table, norm.shared_bias, patches3, actv, relu=True, zero_row=True),
            Codebook(actv, patches5, norm.weight, norm.bias, entries),
        )

    def _upload(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _level(
    patches3: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    patches5: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    index: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
) -> Level:
    """The level of one map."""
    offsets3, offsets5 = (np.array([0, len(rows)], np.int64) for rows in (patches3, patches5))
    return Level(patches3, patches5, index, offsets3, offsets5)
