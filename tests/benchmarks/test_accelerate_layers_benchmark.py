"""`benchmarks.accelerate.layers`: the layers are accelerated, and do not differ."""

from __future__ import annotations

import torch

from benchmarks.accelerate.layers import cases
from benchmarks.accelerate.networks import one_hot
from benchmarks.accelerate.run import measure


def test_layers_by_region_multiply_less_and_features_as_much() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = torch.randint(0, 5, (1, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
        rows = {case.name: measure(case, turns=1) for case in cases(one_hot(labels, 5), channels=8)}
    assert all(row.error < 1e-5 for row in rows.values())
    assert rows["SEAN"].gmac_accelerated < rows["SEAN"].gmac_plain / 4
    assert rows["SPADE on features"].gmac_accelerated == rows["SPADE on features"].gmac_plain
