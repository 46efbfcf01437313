"""The differences between the tensors in a file and the tensors a network expects, and the error that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor


def key_faults(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str = "") -> list[str]:
    """Every missing, surplus and misshapen key, one text each; empty when the keys and shapes are equal."""
    faults = [f"missing {prefix}{key}" for key in expected if key not in found]
    faults += [f"surplus {prefix}{key}" for key in found if key not in expected]
    faults += [
        f"{prefix}{key} is {list(found[key].shape)}, not {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    return faults


def refuse_faults(
    error: Callable[[str], Exception],
    faults: Sequence[str],
    path: Path,
    expected: str,
    fix: str,
    most: int | None = None,
) -> None:
    """Raise `error` if there are faults. The message counts all of them and lists the first `most`, or all.

    Args:
        expected: the operation in brackets and what the file should hold, such as "[load] expected the keys of ..".
        fix: what the user can do.
    """
    if faults:
        listed = "; ".join(faults[:most])
        raise error(f"{expected} in '{path}' but got {len(faults)} faults: {listed}; {fix}")
