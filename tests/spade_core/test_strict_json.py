"""Files of JSON hold nothing that only Python's parser reads."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from spade_core.files.strict_json import json_text

VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def test_numbers_that_json_lacks_become_null() -> None:
    assert json_text({"fid": math.nan, "rows": [(1.5, -math.inf)]}) == '{"fid": null, "rows": [[1.5, null]]}'


@given(VALUES)
def test_any_value_is_written_as_strict_json(value: object) -> None:
    json.loads(json_text(value), parse_constant=no_constant)
