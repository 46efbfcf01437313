"""Requests to engine batches and back: equal sizes run together, a bad request fails alone. Knows no server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.engines.contract import DeviceLostError, Engine, Inputs
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style, style_from_seed
from spade_core.types import Images, Instances, Int32, Labels, Style

log = logging.getLogger(__name__)

DEFAULT_SEED = 0


class RequestError(ValueError):
    """A request that cannot be served; the client gets the message."""


@dataclass(frozen=True)
class Done:
    """The answer to a request: its images, and the timings and the size of the engine batch that it was part of."""

    images: Images  # [N, H, W, 3]
    timings: Timings
    batch_size: int


@dataclass(frozen=True)
class RequestTensors:
    """The tensors of one request of N maps, as the client sent them.

    Attributes:
        labels: uint8 [N, H, W].
        label_ids: int32 [N, H, W], in place of `labels`. A JSON client sends ids as plain numbers, and Triton's parser
            wraps numbers above 255 for a uint8 input.
        instances: int32 [N, H, W].
        style: float32 [N, 256], which goes before `seed`.
        seed: int64 [N, 1].
    """

    labels: Labels | None = None
    instances: Instances | None = None
    style: npt.NDArray[np.float32] | None = None
    seed: npt.NDArray[np.int64] | None = None
    label_ids: Int32 | None = None


def check_request(tensors: RequestTensors, config: GeneratorConfig, max_pixels: int) -> Inputs:
    """Check a request and make its symbols. Without style and seed the seed is 0.

    Raises ValueError, naming the first value that is wrong.
    """
    given: list[npt.NDArray[Any]] = [array for array in (tensors.labels, tensors.label_ids) if array is not None]
    if len(given) != 1:
        got = "both" if given else "neither"
        raise RequestError(f"[spade] expected either labels (UINT8) or label_ids (INT32) but got {got}")
    height, width = given[0].shape[-2:]
    if height * width > max_pixels:
        raise RequestError(
            f"[spade] expected label maps of at most {max_pixels} pixels but got {height}x{width} = {height * width}; "
            "resize with NEAREST, or start the server with a larger --max-pixels"
        )
    labels = given[0] if tensors.label_ids is None else _narrow(tensors.label_ids)
    symbols = prepare(labels, tensors.instances, config)
    return Inputs(labels, tensors.instances, symbols, _style(tensors, len(labels), config))


def _narrow(label_ids: Int32) -> Labels:
    """Label ids as uint8. Raises RequestError, naming the first id that does not fit."""
    bad = (label_ids < 0) | (label_ids > 255)
    if bad.any():
        item, row, column = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise RequestError(
            f"[spade] expected label_ids 0..255 but got {label_ids[item, row, column]}, first at item {item}, "
            f"row {row}, column {column}"
        )
    return label_ids.astype(np.uint8)


def _style(tensors: RequestTensors, count: int, config: GeneratorConfig) -> Style | None:
    if not config.style:
        given = [name for name in ("style", "seed") if getattr(tensors, name) is not None]
        if given:
            raise RequestError(
                f"[spade] expected neither style nor seed, since model {config.preset!r} has no style input, "
                f"but got {' and '.join(given)}; leave it out"
            )
        return None
    if tensors.style is not None:
        return check_style(tensors.style, count, config)
    seeds = np.full((count, 1), DEFAULT_SEED) if tensors.seed is None else tensors.seed
    if seeds.shape != (count, 1):
        raise RequestError(
            f"[spade] expected seed of shape [{count}, 1] (one for each label map) but got {list(seeds.shape)}"
        )
    return np.stack([style_from_seed(int(value)) for value in seeds[:, 0]])  # [N, 256]


OnBatch = Callable[[Timings, int], None]
"""Called with the timings and the size of every engine batch that succeeds."""


def run_requests(
    engine: Engine, requests: Sequence[Inputs], on_batch: OnBatch = lambda _timings, _size: None
) -> list[Done | Exception]:
    """The answer to every request, or the error of that request alone, in the order of `requests`.

    Requests of equal size run as one engine batch. Where a batch fails, its requests run one by one.
    """
    results: list[Done | Exception] = [RequestError("not run")] * len(requests)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(request.size, []).append(index)
    for indices in groups.values():
        outcome = _run_batch(engine, [requests[i] for i in indices], on_batch)
        for index, result in zip(indices, outcome, strict=True):
            results[index] = result
    return results


def _run_batch(engine: Engine, requests: Sequence[Inputs], on_batch: OnBatch) -> list[Done | Exception]:
    try:
        return list(_synthesize(engine, requests, on_batch))
    except DeviceLostError as error:
        return [error] * len(requests)  # one by one they would fail in the same way
    except Exception as error:  # noqa: BLE001 - whatever one request does to the engine, the others must be answered
        if len(requests) == 1:
            return [error]
        log.warning("a batch of %d requests failed, running them one by one: %s", len(requests), error)
        return [result for request in requests for result in _run_batch(engine, [request], on_batch)]


def _synthesize(engine: Engine, requests: Sequence[Inputs], on_batch: OnBatch) -> list[Done]:
    timings, batch = Timings(), Inputs.join(requests)
    images = engine.run(batch, timings)
    on_batch(timings, len(batch))
    ends = np.cumsum([len(request) for request in requests])
    return [Done(part, timings, len(batch)) for part in np.split(images, ends[:-1])]
