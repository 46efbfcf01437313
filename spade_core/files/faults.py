"""The differences between the tensors in a file and the tensors a network expects, and the error that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spade_core.models.shapes import Shapes

_ALL = 8  # faults that a message lists one by one; more are counted by kind
_FIRST = 3  # faults of each kind that the summary shows


def shapes_of(tensors: Mapping[str, Any]) -> Shapes:
    """The shape of each tensor or array."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def key_faults(found: Shapes, expected: Shapes) -> list[str]:
    """Every missing, surplus and misshapen key, one text each; empty when the keys and shapes are equal."""
    faults = [f"missing {key}" for key in expected if key not in found]
    faults += [f"surplus {key}" for key in found if key not in expected]
    faults += [
        f"{key} is {list(found[key])}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    return faults


def refuse_faults(
    error: Callable[[str], Exception], faults: Sequence[str], path: Path, expected: str, fix: str
) -> None:
    """Raise `error` if there are faults. The message lists up to 8 faults, and counts more of them by kind.

    Args:
        expected: the operation in brackets and what the file should hold, such as "[load] expected the keys of ..".
        fix: what the user can do.
    """
    if faults:
        listed = "; ".join(faults if len(faults) <= _ALL else _summary(faults))
        raise error(f"{expected} in '{path}' but got {len(faults)} faults: {listed}; {fix}")


def _summary(faults: Sequence[str]) -> list[str]:
    """One text for each kind of fault: the number of faults and the first few."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(_kind(fault), []).append(fault)
    texts = []
    for kind, alike in kinds.items():
        first = ", ".join(fault.removeprefix(f"{kind} ") for fault in alike[:_FIRST])
        texts.append(f"{len(alike)} {kind}: {first}" + (", .." if len(alike) > _FIRST else ""))
    return texts


def _kind(fault: str) -> str:
    word = fault.partition(" ")[0]
    if word in ("missing", "surplus"):
        return word
    return "of another shape" if " is [" in fault else "of another type"
