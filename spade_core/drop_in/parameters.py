"""Parameters of convs as the codebook reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.drop_in.recognise import SymbolMap
from spade_core.drop_in.structure import Conv


def by_tap(weight: Tensor) -> Tensor:
    """Conv weights [out, in, k, .., k] -> [out, taps, in]."""
    return weight.flatten(2).transpose(1, 2)


def weight_and_bias(conv: Conv) -> tuple[Tensor, Tensor]:
    """The weight of a conv and its bias [out], zeros where it has none.

    Read once a call: a parametrized weight, such as a spectral norm's, is computed anew, and may move on, when it is
    read.
    """
    weight = conv.weight
    return weight, weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def table_of(weight: Tensor, found: SymbolMap) -> Tensor:
    """What each symbol adds to the hidden map at each tap: [taps * (S + 1), hidden]; the last row of a tap is zero."""
    if found.classes is not None:
        weight = weight.index_select(1, found.classes)
    rows = by_tap(weight).permute(1, 2, 0)  # [taps, L, hidden]
    if found.vectors is not None:
        rows = found.vectors.to(rows.dtype) @ rows
    return F.pad(rows, (0, 0, 0, 1)).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class ParameterState:
    """Parameters and buffers as they are, so that a later state tells whether they have changed.

    Attributes:
        versions: where each lies, how often PyTorch saw it change, and the dtype of autocast.
        sample: values at a stride of each, None if there are none. PyTorch does not count a change by a fused
            optimiser, through `.data` or in inference mode; the sample shows such a change.
    """

    versions: tuple[object, ...]
    sample: Tensor | None

    @staticmethod
    def of(modules: Iterable[nn.Module], autocast: torch.dtype | None) -> ParameterState:
        """The state of modules, without a gradient."""
        values = [each for module in modules for each in (*module.parameters(), *module.buffers())]
        versions = tuple((each.data_ptr(), None if each.is_inference() else each._version) for each in values)
        sample = torch.cat([_sampled(each) for each in values]) if values else None
        return ParameterState((*versions, autocast), sample)

    def equals(self, other: ParameterState) -> bool:
        """Whether nothing has changed; a sample with a NaN equals none."""
        if self.versions != other.versions or self.sample is None or other.sample is None:
            return False
        return torch.equal(self.sample, other.sample)


def _sampled(values: Tensor) -> Tensor:
    """A few hundred values of a weight, all of a bias; a view, then a small copy."""
    if values.dim() > 1:
        values = values[:: max(1, values.shape[0] // 8), :: max(1, values.shape[1] // 8)]
    return values.detach().reshape(-1)
