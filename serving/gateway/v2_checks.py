"""Checks of KServe v2 requests, made before Triton sees one: Triton 24.10 can be ended by shapes, sizes and encodings.

A shape whose product wraps to 0 passes Triton's own check of sizes and ends the model's process; a shape with a zero is
never answered. Python's integers do not wrap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

ITEM_BYTES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Bytes of an item of each fixed-size datatype. The models have no other: Triton 24.10 ends on BYTES."""

# datatype: the field of InferTensorContents that may hold it; the others travel as raw bytes only
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip

_LONGEST_ID = 256
_MOST_PARAMETERS = 32
_LONGEST_TEXT = 1 << 17  # a colour table is 65,536 characters, of at most two bytes in most languages
_VERSION = re.compile(r"[0-9]{0,18}")
_SHARED_MEMORY = "shared_memory"
_CLASSES = "classification"


class V2Error(ValueError):
    """A request that goes no further.

    Attributes:
        code: gRPC's status for the client.
    """

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(f"[v2] {text}")
        self.code = code


@dataclass(frozen=True)
class TensorSpec:
    """An input as the model declares it. `shape` includes the batch; -1 is any size."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """What a model takes.

    Attributes:
        inputs: by name.
        outputs: names.
        max_batch: most items of a request.
        max_pixels: most pixels of one map, for inputs [N, H, W].
        max_bytes: most bytes of one input.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: frozenset[str]
    max_batch: int
    max_pixels: int
    max_bytes: int


def deadline_s(request: Any, call_s: float | None = None) -> float | None:
    """Seconds in which the client wants the answer: the request's parameter `timeout`, in microseconds, or gRPC's own.

    `call_s` is what gRPC says of the call. The shorter one counts; None where the client names neither.
    """
    asked = request.parameters["timeout"].int64_param / 1e6 if "timeout" in request.parameters else 0.0
    named = [seconds for seconds in (asked or None, call_s) if seconds is not None]
    return min(named, default=None)


def check_infer(request: Any, spec: ModelSpec) -> int:
    """Check a ModelInferRequest. Returns its number of maps. Raises V2Error, which names the value and the limit."""
    _check_names(request, spec)
    _check_parameters(request.parameters, "the request")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise V2Error(f"expected raw contents for each of {len(request.inputs)} inputs but got {len(raw)}")
    batch = 0
    for index, tensor in enumerate(request.inputs):
        count = check_shape(spec, tensor.name, tensor.datatype, tensor.shape)
        _check_parameters(tensor.parameters, f"input {tensor.name!r}")
        if raw:
            _check_raw(tensor, len(raw[index]), count)
        else:
            _check_contents(tensor, count)
        if batch and tensor.shape[0] != batch:
            raise V2Error(f"expected the same batch in each input but got {batch} and {tensor.shape[0]}")
        batch = int(tensor.shape[0])
    return batch


def check_shape(spec: ModelSpec, name: str, datatype: str, shape: Sequence[int]) -> int:
    """Check the type and the shape of an input. Returns its number of items. Raises V2Error."""
    declared = spec.inputs.get(name)
    if declared is None:
        raise V2Error(f"expected inputs out of {', '.join(spec.inputs)} for '{spec.name}' but got {name[:64]!r}")
    if datatype != declared.datatype:
        raise V2Error(f"expected {name} as {declared.datatype} but got {datatype[:16]!r}; convert it")
    got = list(shape[:8])
    if len(shape) != len(declared.shape):
        raise V2Error(
            f"expected {name} of {len(declared.shape)} dimensions {_shown(declared.shape)} but got {len(shape)}: {got}"
        )
    for size, fixed in zip(shape, declared.shape, strict=True):
        if size < 1 or (fixed > 0 and size != fixed):
            raise V2Error(f"expected {name} of shape {_shown(declared.shape)}, each 1 or more, but got {got}")
    if shape[0] > spec.max_batch:
        raise V2Error(
            f"expected at most {spec.max_batch} maps in a request but got {shape[0]}; send them in parts, or start the "
            "server with a larger --max-batch"
        )
    if len(shape) == 3 and shape[1] * shape[2] > spec.max_pixels:
        raise V2Error(
            f"expected {name} of at most {spec.max_pixels} pixels but got {shape[1]}x{shape[2]}; resize with NEAREST, "
            "or start the server with a larger --max-pixels"
        )
    items = math.prod(shape)
    if items * ITEM_BYTES[datatype] > spec.max_bytes:
        raise V2Error(
            f"expected {name} of at most {spec.max_bytes} bytes but got {items * ITEM_BYTES[datatype]}: shape {got}"
        )
    return items


def _check_names(request: Any, spec: ModelSpec) -> None:
    if len(request.id) > _LONGEST_ID:
        raise V2Error(f"expected an id of at most {_LONGEST_ID} characters but got {len(request.id)}")
    if not _VERSION.fullmatch(request.model_version):
        raise V2Error(f"expected a number as the model's version but got {request.model_version[:64]!r}")
    if not request.inputs:
        raise V2Error(f"expected inputs out of {', '.join(spec.inputs)} for '{spec.name}' but got none")
    _check_unique(tensor.name for tensor in request.inputs)
    _check_unique(tensor.name for tensor in request.outputs)
    for output in request.outputs:
        if output.name not in spec.outputs:
            raise V2Error(
                f"expected outputs out of {', '.join(sorted(spec.outputs))} for '{spec.name}' but got "
                f"{output.name[:64]!r}"
            )
        _check_parameters(output.parameters, f"output {output.name!r}")


def _check_unique(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise V2Error(f"expected each tensor once but got {name[:64]!r} twice")
        seen.add(name)


def _check_parameters(parameters: Mapping[str, Any], where: str) -> None:
    if len(parameters) > _MOST_PARAMETERS:
        raise V2Error(f"expected at most {_MOST_PARAMETERS} parameters of {where} but got {len(parameters)}")
    for name, value in parameters.items():
        if name.startswith(_SHARED_MEMORY) or name == _CLASSES:
            raise V2Error(f"expected no {name[:64]!r} of {where}, which is shut here; send the tensor itself")
        if len(name) > _LONGEST_ID or len(value.string_param) > _LONGEST_TEXT:
            raise V2Error(f"expected shorter parameters of {where} but got one of {len(value.string_param)} bytes")


def _check_raw(tensor: Any, got: int, items: int) -> None:
    if tensor.HasField("contents"):
        raise V2Error(f"expected {tensor.name} as raw bytes or as contents but got both")
    expected = items * ITEM_BYTES[tensor.datatype]
    if got != expected:
        raise V2Error(
            f"expected {expected} bytes of {tensor.name} {tensor.datatype} {list(tensor.shape)} but got {got}"
        )


def _check_contents(tensor: Any, items: int) -> None:
    field = _CONTENTS.get(tensor.datatype)
    filled = [(found.name, len(values)) for found, values in tensor.contents.ListFields()]
    if field is None or filled != [(field, items)]:
        got = ", ".join(f"{count} in {name}" for name, count in filled) or "none"
        raise V2Error(f"expected {items} values of {tensor.name} in {field or 'raw_input_contents'} but got {got}")


def _shown(shape: Sequence[int]) -> str:
    return f"[{', '.join('any' if size < 0 else str(size) for size in shape)}]"
