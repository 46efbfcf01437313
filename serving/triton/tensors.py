"""Tensors of Triton's Python backend, passed by DLPack, which works under NumPy 1 and 2.

Triton 24.10 builds its stub against NumPy 1. Under NumPy 2 the stub reads every item size as 0: `Tensor.as_numpy`
repeats the first value, a Tensor made from an array is empty, and a tensor of type BYTES ends the process. DLPack does
not use the item size. DLPack has no type BYTES, so files travel as UINT8.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils


def read_inputs(request: Any) -> dict[str, npt.NDArray[Any]]:
    """Copies of a request's inputs, by name. The models still read them after Triton has freed the request."""
    return {tensor.name(): np.from_dlpack(tensor).copy() for tensor in request.inputs()}


def read_output(response: Any, name: str) -> npt.NDArray[Any]:
    """One output of another model's response: a view, valid as long as the response."""
    return np.from_dlpack(pb_utils.get_output_tensor_by_name(response, name))


def make_tensor(name: str, array: npt.NDArray[Any]) -> Any:
    """A Tensor that shares the memory of `array`; of a copy where the array is read-only or not contiguous."""
    usable = np.require(array, requirements=["C", "W"])
    return pb_utils.Tensor.from_dlpack(name, usable)


def silence_capsules() -> None:
    """Keep the stub's harmless DLPack message, one for every tensor, out of the log."""
    sys.unraisablehook = _hook


def _hook(unraisable: Any) -> None:
    if "PyCapsule_GetPointer called with incorrect name" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)
