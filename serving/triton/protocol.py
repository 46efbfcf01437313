"""What the launcher, the models inside Triton, and the client must agree on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS = ("spade", "spade_image")
PACKAGE = str(Path(__file__).resolve().parents[1])  # of the process that reads it


UNKNOWN = -1.0
"""A timing that was not measured. NaN would say so too, but NaN is not JSON, which HTTP answers are written in."""


@dataclass(frozen=True)
class RequestTimings:
    """Output `timings` FP32 [N, 7]: these fields in this order, the same row for every map of a request.

    A field that was not measured is `UNKNOWN`; all others are 0 or more.

    Attributes:
        queue_s: from the client's sending to the start of its batch, network and queue included; unknown where the
            request has no parameter `sent_unix_us`. The clocks of both machines enter: the value is as good as the
            clocks agree, and 0 where they would make it negative.
        plan_s, codebook_s, convs_s: where the engine spent the batch this request was part of.
        total_s: from the start of the batch to this answer.
        batch_size: label maps in the engine batch.
        distinct_share: distinct 5x5 patches per pixel over all levels of the batch, 0..1.
    """

    queue_s: float
    plan_s: float
    codebook_s: float
    convs_s: float
    total_s: float
    batch_size: float
    distinct_share: float


def read_timings(answer: Any) -> RequestTimings:
    """Of an answer as tritonclient reads it, over either protocol."""
    return RequestTimings(*(float(value) for value in answer.as_numpy("timings")[0]))


def write_parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Model parameters as strings of JSON, so that None, numbers and records come back as they were."""
    return {key: json.dumps(value) for key, value in values.items()}


def check_package(parameters: Mapping[str, Any]) -> None:
    """Raises RuntimeError where a model process imports another `serving` than the launcher's.

    A published version names no package: it may be served where it was not made.
    Triton's stub takes its packages from the interpreter's own site-packages, and reads no PYTHONPATH.
    """
    if parameters["package"] not in (None, PACKAGE):
        raise RuntimeError(
            f"[serve] expected the model to import {parameters['package']}, as the launcher does, but got {PACKAGE}; "
            "pip install the package into the environment of `spade serve`, and do not rely on PYTHONPATH"
        )


def read_parameters(model_config: str) -> dict[str, Any]:
    """The inverse, inside a model: `args["model_config"]` of `initialize` -> the values."""
    parameters = json.loads(model_config)["parameters"]
    return {key: json.loads(value["string_value"]) for key, value in parameters.items()}
