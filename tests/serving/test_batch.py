"""Requests to engine batches: equal shapes run together, and a bad request fails alone."""

from __future__ import annotations

import numpy as np
import pytest

from serving.engines.contract import Engine, Inputs
from serving.engines.timings import Timings
from serving.requests.batch import Done, RequestError, RequestTensors, check_request, run_requests
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.models.style import style_from_seed
from spade_core.types import Images, Instances, Labels, Style

DEMO = PRESETS["demo"]
COCO = PRESETS["coco"]


class CountingEngine(Engine):
    """Paints every pixel with its label, fails where a label is 13, and records the sizes of its batches."""

    name = "torch"
    precision = "fp32"

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        self.batches: list[int] = []

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        del timings
        labels = inputs.labels
        self.batches.append(len(labels))
        if (labels == 13).any():
            raise RuntimeError("unlucky")
        return labels[..., None].repeat(3, axis=-1)


def request(value: int, count: int = 1, size: int = 64) -> Inputs:
    labels = np.full((count, size, size), value, np.uint8)
    return Inputs(labels, None, labels.astype(np.uint16), None)


def check(
    config: GeneratorConfig,
    labels: Labels,
    instances: Instances | None = None,
    style: Style | None = None,
    seed: np.ndarray | None = None,
    max_pixels: int = 1 << 20,
) -> Inputs:
    return check_request(RequestTensors(labels, instances, style, seed), config, max_pixels)


def painted(result: Done | Exception) -> list[int]:
    assert isinstance(result, Done)
    return [int(image[0, 0, 0]) for image in result.images]


def test_requests_of_equal_size_run_as_one_batch_and_come_back_in_order() -> None:
    engine = CountingEngine(DEMO)
    results = run_requests(engine, [request(1, 2), request(5, size=32), request(2), request(3, 3)])
    assert [painted(r) for r in results] == [[1, 1], [5], [2], [3, 3, 3]]
    assert engine.batches == [6, 1]
    assert [r.batch_size for r in results if isinstance(r, Done)] == [6, 1, 6, 6]


def test_a_request_that_breaks_the_engine_fails_alone() -> None:
    engine = CountingEngine(DEMO)
    good, bad, other = run_requests(engine, [request(1), request(13), request(2)])
    assert painted(good) == [1]
    assert painted(other) == [2]
    assert isinstance(bad, RuntimeError)
    assert engine.batches == [3, 1, 1, 1]


def test_on_batch_hears_of_the_batches_that_succeeded() -> None:
    heard: list[int] = []
    run_requests(CountingEngine(DEMO), [request(1), request(13)], lambda _, size: heard.append(size))
    assert heard == [1]


def test_style_goes_before_seed_and_seed_before_the_default() -> None:
    labels = np.zeros((2, 256, 256), np.uint8)
    style = np.ones((2, 256), np.float32)
    seed = np.array([[7], [8]])
    both = check(DEMO, labels, None, style, seed)
    seeded = check(DEMO, labels, None, None, seed)
    neither = check(DEMO, labels, None, None, None)
    assert both.style is not None
    assert seeded.style is not None
    assert neither.style is not None
    np.testing.assert_array_equal(both.style, style)
    np.testing.assert_array_equal(seeded.style, [style_from_seed(7), style_from_seed(8)])
    np.testing.assert_array_equal(neither.style, [style_from_seed(0)] * 2)


def test_a_model_without_style_refuses_a_seed() -> None:
    labels = np.zeros((1, 256, 256), np.uint8)
    instances = np.zeros((1, 256, 256), np.int32)
    with pytest.raises(RequestError, match="no style input, but got seed; leave it out"):
        check(COCO, labels, instances, None, np.array([[0]]))


@pytest.mark.parametrize(
    ("style", "seed", "text"),
    [
        (np.zeros((1, 255), np.float32), None, r"style of shape \[1, 256\] but got \[1, 255\]"),
        (np.full((1, 256), np.nan, np.float32), None, "finite style but got nan at item 0, entry 0"),
        (None, np.zeros((2, 1), np.int64), r"seed of shape \[1, 1\].* but got \[2, 1\]"),
        (None, np.array([[-1]]), "seed of 0 or more but got -1"),
    ],
)
def test_bad_styles_and_seeds_are_named(style: Style | None, seed: np.ndarray | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check(DEMO, np.zeros((1, 256, 256), np.uint8), None, style, seed)


def test_a_map_over_the_pixel_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestError, match="at most 1000 pixels but got 256x256 = 65536"):
        check(DEMO, np.full((1, 256, 256), 99, np.uint8), max_pixels=1000)


def test_label_ids_stand_in_for_labels_and_keep_their_range() -> None:
    ids = np.full((1, 256, 256), 3, np.int32)
    inputs = check_request(RequestTensors(label_ids=ids), DEMO, 1 << 20)
    assert inputs.labels.dtype == np.uint8
    np.testing.assert_array_equal(inputs.labels, ids)
    for bad in (-1, 256):
        ids[0, 2, 5] = bad
        with pytest.raises(RequestError, match=rf"label_ids 0\.\.255 but got {bad}, first at item 0, row 2, column 5"):
            check_request(RequestTensors(label_ids=ids), DEMO, 1 << 20)
    with pytest.raises(RequestError, match=r"either labels .* or label_ids .* but got both"):
        check_request(RequestTensors(inputs.labels, label_ids=ids), DEMO, 1 << 20)
    with pytest.raises(RequestError, match="but got neither"):
        check_request(RequestTensors(), DEMO, 1 << 20)
