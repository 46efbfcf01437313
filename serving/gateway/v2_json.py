"""The JSON of the KServe v2 protocol over HTTP: requests to messages of gRPC, and answers back.

A body is JSON, then the bytes of the inputs that travel in binary, one after another (Triton's extension of binary
tensor data). The header Inference-Header-Content-Length says how long the JSON is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from serving.gateway.v2_checks import ITEM_BYTES, ModelSpec, V2Error, check_shape

MAX_JSON_BYTES = 16 << 20
_LENGTH = "binary_data_size"
_LONGEST_LIST = 64
_OURS = (_LENGTH, "binary_data")


def read_infer(spec: ModelSpec, body: bytes, json_bytes: int | None) -> tuple[Any, dict[str, bool]]:
    """Read the body of a request to infer: the message, and which outputs are wanted in binary.

    Args:
        json_bytes: length of the JSON; None for a body of JSON alone.

    The answer's second part holds the names of the requested outputs and, under "", what holds for all others. Raises
    V2Error.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise V2Error(f"expected the JSON's length as 0..{len(body)}, the body's, but got {json_bytes}")
    head = body if json_bytes is None else body[:json_bytes]
    values = _object(_parsed(head), "the body")
    message = pb.ModelInferRequest(model_name=spec.name, id=_text(values.get("id", ""), "id"))
    parameters = _object(values.get("parameters", {}), "parameters")
    binary = {"": parameters.pop("binary_data_output", False) is True}
    _write_parameters(message.parameters, parameters, "parameters")
    at = len(head)
    for item in _list(values.get("inputs", []), "inputs"):
        at = _add_input(message, spec, _object(item, "an input"), body, at)
    if at != len(body):
        raise V2Error(f"expected {at} bytes, all tensors together, but got {len(body)}")
    for item in _list(values.get("outputs", []), "outputs"):
        wanted = _object(item, "an output")
        output = message.outputs.add(name=_text(wanted.get("name"), "the name of an output"))
        given = _object(wanted.get("parameters", {}), "parameters of an output")
        binary[output.name] = given.get("binary_data", binary[""]) is True
        _write_parameters(output.parameters, given, f"parameters of {output.name}")
    return message, binary


def write_answer(answer: Any, binary: Mapping[str, bool]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON, None where all of it is JSON."""
    outputs, raw = [], []
    for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if binary.get(output.name, binary[""]):
            entry["parameters"] = {_LENGTH: len(data)}
            raw.append(data)
        else:
            entry["data"] = np.frombuffer(data, triton_to_np_dtype(output.datatype)).tolist()
        outputs.append(entry)
    head = {"model_name": answer.model_name, "model_version": answer.model_version, "outputs": outputs}
    if answer.id:
        head["id"] = answer.id
    text = json.dumps(head).encode()
    return (b"".join([text, *raw]), len(text)) if raw else (text, None)


def _parsed(text: bytes) -> Any:
    if len(text) > MAX_JSON_BYTES:
        raise V2Error(
            f"expected JSON of at most {MAX_JSON_BYTES} bytes but got {len(text)}; send the tensors in binary"
        )
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise V2Error("expected JSON of a few levels but got it nested too deep") from None
    except ValueError as error:
        if isinstance(error, V2Error):
            raise
        raise V2Error(f"expected JSON but got something else: {str(error)[:200]}") from None


def _refuse_constant(name: str) -> Any:
    raise V2Error(f"expected numbers of JSON but got {name}")


def _add_input(message: Any, spec: ModelSpec, values: dict[str, Any], body: bytes, at: int) -> int:
    """Add an input. `at` is where its bytes would begin; returns where they end."""
    name = _text(values.get("name"), "the name of an input")
    datatype = _text(values.get("datatype"), f"the datatype of {name}")
    shape = _shape(values.get("shape"), name)
    items = check_shape(spec, name, datatype, shape)
    parameters = _object(values.get("parameters", {}), f"parameters of {name}")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    _write_parameters(tensor.parameters, parameters, f"parameters of {name}")
    size = parameters.get(_LENGTH)
    if size is None:
        message.raw_input_contents.append(_numbers(values.get("data"), name, datatype, items))
        return at
    if "data" in values:
        raise V2Error(f"expected {name} as data or in binary but got both")
    expected = items * ITEM_BYTES[datatype]
    if isinstance(size, bool) or size != expected or at + expected > len(body):
        raise V2Error(
            f"expected {expected} bytes of {name} {datatype} {shape} but got {_LENGTH} {_shown(size)} and "
            f"{len(body) - at} bytes"
        )
    message.raw_input_contents.append(body[at : at + expected])
    return at + expected


def _numbers(data: Any, name: str, datatype: str, items: int) -> bytes:
    """The values of JSON, nested or flat, as bytes."""
    dtype = np.dtype(triton_to_np_dtype(datatype))
    wrong = V2Error(f"expected data of {name} as {items} values of {datatype} but got something else")
    if not isinstance(data, list):
        raise wrong
    try:
        array: npt.NDArray[Any] = np.array(data)
    except (ValueError, OverflowError, RecursionError):  # ragged, or nested deeper than NumPy's arrays
        raise wrong from None
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise wrong
    if array.size != items:
        raise V2Error(f"expected {items} values of {name} but got {array.size}")
    limits = None if dtype.kind in "bf" else np.iinfo(dtype)
    if limits is not None and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        bad = array.min() if array.min() < limits.min else array.max()
        raise V2Error(f"expected values of {name} {limits.min}..{limits.max} but got {bad}")
    return array.astype(dtype).tobytes()


def _write_parameters(target: Any, values: Mapping[str, Any], where: str) -> None:
    for name, value in values.items():
        if name in _OURS:
            continue
        match value:
            case bool():
                target[name].bool_param = value
            case int() if -(2**63) <= value < 2**63:
                target[name].int64_param = value
            case str():
                target[name].string_param = _text(value, where)
            case float():
                target[name].double_param = value
            case _:
                raise V2Error(f"expected {where} as texts, numbers and truths but got {name[:64]!r}: {_shown(value)}")


def _shape(value: Any, name: str) -> list[int]:
    sizes = _list(value, f"the shape of {name}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31:
            raise V2Error(
                f"expected each size of {name} as an integer of 1 or more, below 2^31, but got {_shown(size)}"
            )
    return sizes


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise V2Error(f"expected {what[:64]} as an object but got {_shown(value)}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise V2Error(f"expected {what[:64]} as a list but got {_shown(value)}")
    if len(value) > _LONGEST_LIST:
        raise V2Error(f"expected {what[:64]} as a list of at most {_LONGEST_LIST} but got {len(value)}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise V2Error(f"expected {what[:64]} as a text but got {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no message of gRPC can hold
        raise V2Error(f"expected {what[:64]} as Unicode but got a lone surrogate") from None
    return value


def _shown(value: Any) -> str:
    """A value as an error shows it: short, whatever was sent."""
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | dict) else repr(value)[:64]


def write_message(message: Any) -> dict[str, Any]:
    """A message as JSON in Triton's way: names as they are, 64-bit integers as numbers, and empty fields too."""
    return dict(_fields(message))


def _fields(message: Any) -> Iterator[tuple[str, Any]]:
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield field.name, {str(key): _value(field.message_type.fields[1], item) for key, item in value.items()}
        elif hasattr(value, "append"):
            yield field.name, [_value(field, item) for item in value]
        elif not (field.has_presence and not message.HasField(field.name)):
            yield field.name, _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return write_message(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode(errors="replace") if isinstance(value, bytes) else value
