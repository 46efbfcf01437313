"""What of a request's time the gateway itself takes, by its own metric `spade_gateway_own_seconds`."""

from __future__ import annotations

import math
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from serving.gateway.pair import Pair

_METRIC = "spade_gateway_own_seconds"
# The labels `door` and `call` of each door's requests.
_CALLS = {
    "grpc": ("grpc", "ModelInfer"),
    "http": ("http", "/v2/models/{model}/infer"),
    "rest": ("http", "/v1/synthesize"),
}


@dataclass(frozen=True)
class Own:
    """Counts since the gateway's start.

    Attributes:
        below: requests by the bound of their seconds, which takes in the bounds before it.
    """

    requests: float
    seconds: float
    below: dict[float, float]

    def __sub__(self, before: Own) -> Own:
        below = {bound: count - before.below.get(bound, 0.0) for bound, count in self.below.items()}
        return Own(self.requests - before.requests, self.seconds - before.seconds, below)

    @property
    def mean_ms(self) -> float:
        return self.seconds / self.requests * 1000

    @property
    def p99_ms(self) -> float:
        """The smallest bound of a bucket that 99 of 100 requests are below."""
        return min(bound for bound, count in self.below.items() if count >= 0.99 * self.requests) * 1000

    def share_below(self, seconds: float) -> float:
        """The share of requests that took less; `seconds` is the bound of a bucket."""
        return next(count for bound, count in self.below.items() if math.isclose(bound, seconds)) / self.requests


def read_own(pair: Pair, door: str) -> Own:
    """The gateway's own time at a door so far."""
    with urllib.request.urlopen(pair.metrics_url, timeout=10) as response:
        text = response.read().decode()
    found = Own(0.0, 0.0, {})
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.startswith(_METRIC) or _CALLS[door] != (sample.labels["door"], sample.labels["call"]):
                continue
            match sample.name.removeprefix(_METRIC):
                case "_count":
                    found = Own(sample.value, found.seconds, found.below)
                case "_sum":
                    found = Own(found.requests, sample.value, found.below)
                case "_bucket":
                    found.below[float(sample.labels["le"])] = sample.value
    return found
