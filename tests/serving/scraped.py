"""What the Prometheus scrape of a server shows."""

from __future__ import annotations

import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from served import wait_until

from serving.triton.server import Server


def scrape(server: Server) -> dict[str, float]:
    """Every sample of our metrics, summed over processes: the name, with `le` or `outcome`, and the value."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("spade_"):
                key = sample.labels.get("le") or sample.labels.get("outcome")
                name = sample.name + (f" {key}" if key else "")
                samples[name] = samples.get(name, 0) + sample.value
    return samples


def scrape_at_rest(server: Server) -> dict[str, float]:
    """`scrape`, once the requests of earlier tests are counted: metrics lag up to half a second behind the answers."""
    samples: dict[str, float] = {}

    def at_rest() -> bool:
        before = scrape(server)
        time.sleep(0.7)
        samples.update(scrape(server))
        return samples == before

    wait_until(at_rest, "the metrics to stand still")
    return samples


def moved_since(server: Server, before: dict[str, float], least: dict[str, float]) -> dict[str, float]:
    """How far every sample has moved from `before`, once some have moved by `least`: metrics lag behind the answers."""
    moved: dict[str, float] = {}

    def has_moved() -> bool:
        after = scrape(server)
        moved.update({name: after[name] - before[name] for name in after})
        return all(moved[name] >= value for name, value in least.items())

    wait_until(has_moved, f"the metrics to move by {least}")
    return moved
