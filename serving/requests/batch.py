"""Requests to engine batches and back: equal shapes run together, a bad request fails alone. Knows no server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.engines.contract import Engine
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style, style_from_seed
from spade_core.types import Images, Instances, Labels, Style

log = logging.getLogger(__name__)

DEFAULT_SEED = 0


class RequestError(ValueError):
    """A request that cannot be served; the message goes to its client."""


@dataclass(frozen=True)
class Item:
    """A checked request: N label maps of one size, with what the model reads beside them."""

    labels: Labels  # [N, H, W]
    instances: Instances | None  # [N, H, W]
    style: Style | None  # [N, 256]


@dataclass(frozen=True)
class Done:
    """An answered item: its images, and the timings and size of the engine batch it was part of."""

    images: Images  # [N, H, W, 3]
    timings: Timings
    batch_size: int


def check_item(
    config: GeneratorConfig,
    max_pixels: int,
    labels: Labels,
    instances: Instances | None,
    style: npt.NDArray[np.float32] | None,
    seed: npt.NDArray[np.int64] | None,
) -> Item:
    """The tensors of one request [N, ..] as an Item. Raises ValueError with the first thing that is wrong.

    `style` [N, 256] goes before `seed` [N, 1]; without both, the seed is 0.
    """
    height, width = labels.shape[-2:]
    if height * width > max_pixels:
        raise RequestError(
            f"[spade] expected label maps of at most {max_pixels} pixels but got {height}x{width} = {height * width}; "
            "resize with NEAREST, or start the server with a larger --max-pixels"
        )
    prepare(labels, instances, config)
    return Item(labels, instances, _style(config, len(labels), style, seed))


def _style(
    config: GeneratorConfig, count: int, style: npt.NDArray[np.float32] | None, seed: npt.NDArray[np.int64] | None
) -> Style | None:
    if not config.style:
        given = [name for name, value in (("style", style), ("seed", seed)) if value is not None]
        if given:
            raise RequestError(
                f"[spade] expected neither style nor seed, since model {config.preset!r} has no style input, "
                f"but got {' and '.join(given)}; leave it out"
            )
        return None
    if style is not None:
        return check_style(style, count, config)
    seeds = np.full((count, 1), DEFAULT_SEED) if seed is None else seed
    if seeds.shape != (count, 1):
        raise RequestError(
            f"[spade] expected seed of shape [{count}, 1] (one for each label map) but got {list(seeds.shape)}"
        )
    return np.stack([style_from_seed(int(value)) for value in seeds[:, 0]])  # [N, 256]


def run_items(
    engine: Engine, items: Sequence[Item], on_batch: Callable[[Timings, int], None] = lambda _timings, _size: None
) -> list[Done | Exception]:
    """Every item's images, or the error that is its own; in the order of `items`.

    Items of equal size run as one engine batch. When a batch fails, its items run one by one. `on_batch` hears of each
    batch that succeeded.
    """
    results: list[Done | Exception] = [RequestError("not run")] * len(items)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.labels.shape[1:], []).append(index)
    for indices in groups.values():
        outcome = _run_batch(engine, [items[i] for i in indices], on_batch)
        for index, result in zip(indices, outcome, strict=True):
            results[index] = result
    return results


def _run_batch(engine: Engine, items: list[Item], on_batch: Callable[[Timings, int], None]) -> list[Done | Exception]:
    try:
        return list(_synthesize(engine, items, on_batch))
    except Exception as error:  # noqa: BLE001 - whatever one item does to the engine, the others must be answered
        if len(items) == 1:
            return [error]
        log.warning("a batch of %d requests failed, running them one by one: %s", len(items), error)
        return [result for item in items for result in _run_batch(engine, [item], on_batch)]


def _synthesize(engine: Engine, items: list[Item], on_batch: Callable[[Timings, int], None]) -> list[Done]:
    timings = Timings()
    labels = np.concatenate([item.labels for item in items])
    images = engine.synthesize(
        labels,
        _concatenated([item.instances for item in items]),
        _concatenated([item.style for item in items]),
        timings,
    )
    on_batch(timings, len(labels))
    ends = np.cumsum([len(item.labels) for item in items])
    return [Done(part, timings, len(labels)) for part in np.split(images, ends[:-1])]


def _concatenated(parts: list[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """None where no item has this input: it depends on the model only, so either all have it or none."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None
