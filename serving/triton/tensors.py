"""Requests, responses and tensors of the Python backend, the one way that is right under NumPy 1 and 2.

The stub of Triton 24.10 was built against NumPy 1's record of a data type. Under NumPy 2 it reads every item size as 0:
`Tensor.as_numpy` repeats the first value, a Tensor made from an array is empty, and a tensor of type BYTES ends the
process. DLPack goes past that record, and knows no BYTES: so files travel as UINT8.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils


def read_inputs(request: Any) -> dict[str, npt.NDArray[Any]]:
    """The inputs of a request by name: copies, since the models answer after the request's own end."""
    return {tensor.name(): np.from_dlpack(tensor).copy() for tensor in request.inputs()}


def read_output(response: Any, name: str) -> npt.NDArray[Any]:
    """One output of a response to a request that this model sent: a view that lives as long as the response."""
    return np.from_dlpack(pb_utils.get_output_tensor_by_name(response, name))


def make_tensor(name: str, array: npt.NDArray[Any]) -> Any:
    """A Tensor on the memory of `array`, or on a copy where that is read-only or has gaps."""
    usable = np.require(array, requirements=["C", "W"])
    return pb_utils.Tensor.from_dlpack(name, usable)


def send(sender: Any, response: Any) -> None:
    """Answers a request through its response sender, once."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def error_response(message: str, code: int) -> Any:
    """A response that says what went wrong; code: one of `pb_utils.TritonError`'s."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def silence_capsules() -> None:
    """Keeps a line a tensor out of the log: the stub gives a used DLPack capsule a name that NumPy cannot know."""
    sys.unraisablehook = _hook


def _hook(unraisable: Any) -> None:
    if "PyCapsule_GetPointer called with incorrect name" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)
