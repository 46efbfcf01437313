"""What the launcher and the models inside Triton agree on. `serving.protocol` has what clients know too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.traces import TRACEPARENT
from serving.triton.identity import IDENTIFY

PACKAGE = str(Path(__file__).resolve().parents[1])  # the package `serving` that this process imports

# ---- Errors on their way from model to model ----

MARK_OUTCOME = "mark_outcome"
"""A request parameter of `spade_image`: `spade` then marks the outcome in the message of an error."""

ANSWER_BY = "answer_by_us"
"""A request parameter from `spade_image` to `spade`: when the client gives up, microseconds of the monotonic clock."""

TOKEN = "cancel_token"
"""A request parameter from `spade_image` to `spade`: see `serving.triton.cancelled`."""

_MARK = re.compile(r"<(\w+)> ", re.ASCII)


def mark_outcome(message: str, outcome: str) -> str:
    """An error's message with its outcome (`serving.triton.metrics.OUTCOMES`) in front."""
    return f"<{outcome}> {message}"


def read_outcome(message: str) -> tuple[str | None, str]:
    """The inverse: the outcome, None without a mark, and the message."""
    found = _MARK.match(message)
    return (found[1], message[found.end() :]) if found else (None, message)


# ---- Parameters of a model ----


_HIDDEN = (MARK_OUTCOME, IDENTIFY, ANSWER_BY, TOKEN, TRACEPARENT)  # from model to model, or of the gateway
_SENT = ("sent_unix_us", *_HIDDEN)
_IMAGE = ("format", "quality", "colours", "size")
_PARAMETERS = {"spade": ("session", *_SENT), "spade_image": (*_IMAGE, *_SENT)}


def check_parameters(model: str, parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for a request parameter that a model does not know, such as a misspelt one."""
    known = _PARAMETERS[model]
    # Triton adds parameters of its own, which begin with its name.
    unknown = [name for name in parameters if name not in known and not name.startswith("triton_")]
    if unknown:
        offered = ", ".join(name for name in known if name not in _HIDDEN)
        raise ValueError(f"[{model}] expected request parameters out of {offered} but got {', '.join(unknown)}")


def write_parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Model parameters as strings of JSON, which keep None, numbers and records what they are."""
    return {key: json.dumps(value) for key, value in values.items()}


def check_package(parameters: Mapping[str, Any]) -> None:
    """Raises RuntimeError where a model process imports another package `serving` than the launcher.

    A published version names no package, since another machine may serve the version. Triton's stub imports from the
    interpreter's own site-packages and ignores PYTHONPATH.
    """
    if parameters["package"] not in (None, PACKAGE):
        raise RuntimeError(
            f"[serve] expected the model to import {parameters['package']}, as the launcher does, but got {PACKAGE}; "
            "pip install the package into the environment of `spade serve`, and do not rely on PYTHONPATH"
        )


def read_parameters(model_config: str) -> dict[str, Any]:
    """The parameters inside a model: `args["model_config"]` of `initialize` -> the values."""
    parameters = json.loads(model_config)["parameters"]
    return {key: json.loads(value["string_value"]) for key, value in parameters.items()}
