"""What tests of `accelerate` share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def seeded() -> Iterator[None]:
    """Random numbers that are the same whatever ran before, and leave those of other tests alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
