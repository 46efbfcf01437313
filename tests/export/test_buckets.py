"""Padded plans: few lengths, little padding, and the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import small

from export.buckets import LEAST, bucket, bucketed, fits
from export.feeds import level_feed, start_feed
from export.onnx import export_graph
from export.verify import MAX_ERROR_FP32, open_session
from kernels.ops.plan import plan
from spade_core.maps.label_maps import prepare
from spade_core.models.seeded import seeded_generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 20))
def test_a_bucket_holds_its_rows_and_wastes_at_most_a_fifth(rows: int, room: int) -> None:
    size = bucket(rows, rows + room)
    assert rows <= size <= rows + room
    assert size <= max(LEAST, rows * 5 / 4)


def test_there_are_few_buckets() -> None:
    assert len({bucket(rows, 1 << 16) for rows in range(1, 1 << 16)}) < 50


def test_padding_changes_no_pixel(tmp_path: Path) -> None:
    config = small("coco")
    export_graph(seeded_generator(config), tmp_path / "m.onnx", "codebook")
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[0, 5:15, 3:25], labels[1, 10:] = 3, 255
    symbols = prepare(labels, labels.astype(np.int32), config)
    levels = plan(symbols, config.level_sizes, config.symbols, config.spade_kernel)
    session, start = open_session("onnxruntime", tmp_path / "m.onnx"), start_feed(symbols, None, config)
    most = [(2 * h * w, 2 * h * w) for h, w in config.level_sizes]
    assert fits(levels, most)
    assert not fits(levels, [*most[:-1], (most[-1][0], len(levels[-1].patches5) - 1)])
    grown = bucketed(levels, most)
    assert [len(level.patches5) for level in grown] != [len(level.patches5) for level in levels]
    # A matrix product may split its sums elsewhere for another number of rows, which changes float32 rounding only.
    got, expected = session(level_feed(grown) | start), session(level_feed(levels) | start)
    assert not np.abs(got - expected).max() > MAX_ERROR_FP32
