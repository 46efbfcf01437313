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
        seconds: the sum over the requests.
        below: requests by the bound of their seconds, which takes in the bounds before it; the last is infinite.
    """

    seconds: float
    below: dict[float, float]

    def __sub__(self, before: Own) -> Own:
        below = {bound: count - before.below.get(bound, 0.0) for bound, count in self.below.items()}
        return Own(self.seconds - before.seconds, below)

    @property
    def requests(self) -> float:
        return self.below[math.inf]

    @property
    def mean_ms(self) -> float:
        return self.seconds / self.requests * 1000

    @property
    def p99_ms(self) -> float:
        """The smallest bound that 99 of 100 requests are below."""
        return min(bound for bound, count in self.below.items() if count >= 0.99 * self.requests) * 1000

    def share_below(self, seconds: float) -> float:
        """The share of requests that took less than a bound."""
        return self.below[seconds] / self.requests


def read_own(pair: Pair, name: str) -> Own:
    """The gateway's own time at a door so far."""
    with urllib.request.urlopen(pair.metrics_url, timeout=10) as response:
        text = response.read().decode()
    door, call = _CALLS[name]
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        if family.name == _METRIC
        for sample in family.samples
        if (sample.labels["door"], sample.labels["call"]) == (door, call)
    ]
    seconds = sum(sample.value for sample in samples if sample.name.endswith("_sum"))
    return Own(seconds, {float(one.labels["le"]): one.value for one in samples if "le" in one.labels})
