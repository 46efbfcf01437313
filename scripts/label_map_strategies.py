"""What Schemathesis sends where the description says image/png: label maps of the demo model. See fuzz_http.py."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image

CLASSES = 16


def label_map(size: tuple[int, int], seed: int) -> bytes:
    """A PNG of ids."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, CLASSES, size, dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001 - Schemathesis calls it by these names
    """Give every request the time that it needs: one that has run out of its own is answered 504, as it should be."""
    for place in (case.query, case.body):
        if isinstance(place, dict) and _is_short(place.get("timeout")):
            place["timeout"] = 60


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:  # noqa: ARG001 - as above
    """Leave out forms with a list of none or one: it travels as an absent field or as one field, which is right."""
    values = case.body.values() if isinstance(case.body, dict) else ()
    return not any(isinstance(value, list) and len(value) <= 1 for value in values)


def _is_short(timeout: Any) -> bool:
    try:
        return 0 < float(timeout) < 60
    except (TypeError, ValueError):
        return False


_SIDES = st.integers(1, 64)
schemathesis.openapi.media_type("image/png", st.builds(label_map, st.tuples(_SIDES, _SIDES), st.integers(0, 9)))
