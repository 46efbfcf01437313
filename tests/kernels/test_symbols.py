"""The native symbols equal their NumPy specification, and label maps are checked without the compiled module too."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels.ops.symbols import instance_edges, symbols, symbols_numpy

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)


@settings(deadline=None)
@given(data=st.data(), dont_care=st.booleans(), with_instances=st.booleans())
def test_the_kernel_equals_its_specification(data: st.DataObject, dont_care: bool, with_instances: bool) -> None:
    shape = data.draw(SHAPES)
    classes = data.draw(st.integers(1, 256))
    ids = st.one_of(st.integers(0, min(classes, 255)), st.just(255))
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=ids))
    instances = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-2, 2))) if with_instances else None
    arguments = (labels, instances, classes, classes - 1 if dont_care else None)
    got, got_known = symbols(*arguments)
    expected, expected_known = symbols_numpy(*arguments)
    assert got.dtype == expected.dtype == np.uint16
    np.testing.assert_array_equal(got, expected)
    assert got_known is expected_known


def test_the_formula_written_once_more() -> None:
    labels = np.array([[[3, 255], [3, 4]]], np.uint8)
    instances = np.array([[[1, 1], [1, 2]]], np.int32)
    expected = np.array([[[6, 2 * 7 + 1], [2 * 3 + 1, 2 * 4 + 1]]], np.uint16)
    for function in (symbols, symbols_numpy):
        got, known = function(labels, instances, 8, 7)
        np.testing.assert_array_equal(got, expected)
        assert known is True
        assert function(labels, None, 8, None)[1] is False  # 255 is no class here
    np.testing.assert_array_equal(instance_edges(instances)[0], [[False, True], [True, True]])


@pytest.mark.parametrize("order", ["C", "F"])
def test_maps_in_any_memory_order_are_read(order: str) -> None:
    maps: npt.NDArray[np.uint8] = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    laid: npt.NDArray[np.uint8] = np.asarray(maps, order=order)  # type: ignore[call-overload]
    np.testing.assert_array_equal(symbols(laid, None, 256, None)[0], maps)


def test_label_maps_are_checked_without_the_compiled_module_and_the_log_says_so_once() -> None:
    code = """
import sys
sys.modules["kernels._native"] = None
import numpy as np
from spade_core.config import preset
from spade_core.maps.label_maps import LabelMapError, prepare
config = preset("coco")
labels = np.zeros((1, config.height, config.width), np.uint8)
for _ in range(2):
    assert prepare(labels, labels.astype(np.int32), config).sum() == 0
labels[0, 1, 2] = 200
try:
    prepare(labels, labels.astype(np.int32), config)
except LabelMapError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "but got 200 in 1 pixels, first at item 0, row 1, column 2" in done.stdout
    assert done.stderr.count("expected the compiled module kernels._native") == 1
    assert "symbols are made in NumPy until then, which is slower" in done.stderr
