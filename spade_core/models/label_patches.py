"""Label maps as the discriminator reads them, without one-hot maps.

The first conv, 4x4 with stride 2, reads S + 3 channels, of which S are one-hot. As in the codebook form, a conv on
one-hot channels is a sum of gathered rows, one sum for each distinct 4x4 patch. The halved maps of further scales hold
the share of each class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.config import GeneratorConfig

KERNEL, STRIDE, PADDING = 4, 2, 2  # of the discriminator's first conv


@dataclass(frozen=True)
class LabelPatches:
    """The distinct patches under the discriminator's first conv, over a batch.

    Attributes:
        patches: int32 [U, 16], symbols, taps row-major; the symbol after the last means "outside the image".
        index: int32 [N, H // 2 + 1, W // 2 + 1], rows of patches.
    """

    patches: Tensor
    index: Tensor

    def to(self, device: torch.device) -> LabelPatches:
        """A copy on `device`."""
        return LabelPatches(self.patches.to(device), self.index.to(device))


def label_patches(symbols: npt.NDArray[np.uint16], n_symbols: int) -> LabelPatches:
    """The patches of symbols uint16 [N, H, W] with values 0 .. n_symbols - 1."""
    border = ((0, 0), (PADDING, PADDING), (PADDING, PADDING))
    padded = np.pad(symbols, border, constant_values=n_symbols)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (1, 2))[:, ::STRIDE, ::STRIDE]
    rows = np.ascontiguousarray(windows).reshape(-1, KERNEL * KERNEL)  # [N*h*w, 16]
    order = np.lexsort(rows.view(np.uint64).T)  # a key is four symbols
    sorted_rows = rows[order]
    first = np.ones(len(rows), bool)
    first[1:] = (sorted_rows[1:] != sorted_rows[:-1]).any(1)
    index = np.empty(len(rows), np.int32)
    index[order] = np.cumsum(first) - 1
    patches = sorted_rows[first].astype(np.int32)
    return LabelPatches(torch.from_numpy(patches), torch.from_numpy(index.reshape(windows.shape[:3])))


def halved_one_hot(symbols: Tensor, config: GeneratorConfig) -> Tensor:
    """The one-hot map of symbols [N, H, W], averaged 3x3 with stride 2: float32 [N, S, h, w], channels last.

    h = (H + 1) // 2. The average has padding 1, which it does not count.
    """
    labels = symbols // 2 if config.instance_edges else symbols
    windows = F.pad(labels.long(), (1, 1, 1, 1), value=config.classes).unfold(1, 3, 2).unfold(2, 3, 2)
    windows = windows.flatten(3)  # [N, h, w, 9]
    shares = torch.zeros((*windows.shape[:3], config.classes + 1), device=symbols.device)
    one = torch.ones((), device=symbols.device).expand(windows.shape)
    shares.scatter_add_(3, windows, one)
    inside = 9 - shares[..., -1:]
    if config.instance_edges:  # the channel of edges replaces the count of pixels outside
        edges = F.pad((symbols % 2).float(), (1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2)
        shares[..., -1] = edges.sum((3, 4))
    else:
        shares = shares[..., :-1]
    return (shares / inside).permute(0, 3, 1, 2)
