"""Parameters of convs as the codebook reads them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spade_core.drop_in.recognise import SymbolMap
from spade_core.drop_in.structure import Conv


def by_tap(weight: Tensor) -> Tensor:
    """Conv weights [out, in, k, .., k] -> [out, taps, in]."""
    return weight.flatten(2).transpose(1, 2)


def bias_of(conv: Conv) -> Tensor:
    """The bias of a conv [out], zeros where it has none."""
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def table_of(weight: Tensor, found: SymbolMap) -> Tensor:
    """What each symbol adds to the hidden map at each tap: [taps * (S + 1), hidden]; the last row of a tap is zero."""
    if found.classes is not None:
        weight = weight.index_select(1, found.classes)
    rows = by_tap(weight).permute(1, 2, 0)  # [taps, L, hidden]
    if found.vectors is not None:
        rows = found.vectors.to(rows.dtype) @ rows
    return F.pad(rows, (0, 0, 0, 1)).flatten(0, 1)
