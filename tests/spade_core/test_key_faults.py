"""The error about the keys of a file: a few faults are listed, many are counted by kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spade_core.files.faults import key_faults, refuse_faults, shapes_of


def refusal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    with pytest.raises(ValueError, match=r"expected keys in 'w\.pth' but got .* faults: ") as error:
        refuse_faults(
            ValueError, key_faults(shapes_of(found), shapes_of(expected)), Path("w.pth"), "expected keys", "train again"
        )
    return str(error.value)


def test_eight_faults_are_listed() -> None:
    text = refusal({}, {f"k{i}": torch.ones(1) for i in range(8)})
    assert text.endswith("8 faults: " + "; ".join(f"missing k{i}" for i in range(8)) + "; train again")


def test_more_faults_are_counted_by_kind_with_the_first_three() -> None:
    one, two = torch.ones(1), torch.ones(2)
    found = {f"shaped{i}": two for i in range(60)} | {f"new{i}": one for i in range(3)}
    expected = {f"shaped{i}": one for i in range(60)} | {f"gone{i}": one for i in range(98)}
    assert refusal(found, expected).endswith(
        "161 faults: 98 missing: gone0, gone1, gone2, ..; 3 surplus: new0, new1, new2; "
        "60 of another shape: shaped0 is [2], not [1], shaped1 is [2], not [1], shaped2 is [2], not [1], ..; "
        "train again"
    )


def test_no_fault_is_no_error() -> None:
    refuse_faults(ValueError, key_faults({"a": (1,)}, {"a": (1,)}), Path("w.pth"), "keys", "fix")
