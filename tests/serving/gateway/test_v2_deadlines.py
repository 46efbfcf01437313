"""How long a v2 client waits, as the gateway reads it."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.v2_checks import deadline_s


@pytest.mark.parametrize(
    ("timeout_us", "call_s", "expected"),
    [
        (None, None, None),
        (2_500_000, None, 2.5),
        (None, 4.0, 4.0),
        (2_500_000, 1.0, 1.0),
        (500_000, 4.0, 0.5),
        (0, 3, 3),
    ],
)
def test_the_shorter_of_the_parameter_and_the_calls_own_deadline_counts(
    timeout_us: int | None, call_s: float | None, expected: float | None
) -> None:
    request = pb.ModelInferRequest()
    if timeout_us is not None:
        request.parameters["timeout"].int64_param = timeout_us
    assert deadline_s(request, call_s) == expected
    assert ("timeout" in request.parameters) == (timeout_us is not None), "asking adds nothing to the request"
