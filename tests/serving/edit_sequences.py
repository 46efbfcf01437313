"""Random sequences of edits, drawn in a session and anew, bit for bit. As a script it checks thousands of edits:

python tests/serving/edit_sequences.py --seconds 600
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from generators import trained_like

from kernels.isa import ISA_VARIABLE, input_dtype, supported_isas
from serving.engines.contract import Engine, Inputs, check_inputs
from serving.engines.cpu.engine import CpuEngine
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.models.style import style_from_seed

KINDS = ("stroke", "two strokes", "undo", "swap", "resize", "style")
Map = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None, npt.NDArray[np.float32] | None]

# ---- Edits ----


def new_map(rng: np.random.Generator, config: GeneratorConfig, height: int, width: int) -> Map:
    """A map of blocks, of noise, or of one label."""
    cell = int(rng.choice([1, 4, 16, 32]))
    shape = (1, -(-height // cell), -(-width // cell))
    coarse = rng.integers(0, config.label_nc, shape).astype(np.uint8)
    labels = np.ascontiguousarray(coarse.repeat(cell, 1).repeat(cell, 2)[:, :height, :width])
    if rng.random() < 0.2:
        labels[:] = labels[0, 0, 0]
    instances = (labels // 2).astype(np.int32) if config.instance_edges else None
    return labels, instances, style_from_seed(int(rng.integers(4)))[None] if config.style else None


def edited(rng: np.random.Generator, config: GeneratorConfig, of: Map) -> Map:
    """The map after one stroke, filled or noisy, anywhere; borders and corners are likely."""
    labels, instances = of[0].copy(), None if of[1] is None else of[1].copy()
    _, height, width = labels.shape
    longest = int(rng.choice([1, 2, 3, 9, 40, 200]))
    tall, wide = int(rng.integers(1, min(longest, height) + 1)), int(rng.integers(1, min(longest, width) + 1))
    top = int(rng.choice([0, height - tall, rng.integers(0, height - tall + 1)]))
    left = int(rng.choice([0, width - wide, rng.integers(0, width - wide + 1)]))
    at = (0, slice(top, top + tall), slice(left, left + wide))
    stroke = rng.random((tall, wide)) < rng.choice([0.1, 0.7, 1.0])
    noise = rng.integers(0, config.label_nc, (tall, wide)) if rng.random() < 0.3 else rng.integers(0, config.label_nc)
    if rng.random() < 0.8:
        labels[at] = np.where(stroke, noise, labels[at])
    if instances is not None:
        instances[at] = np.where(stroke, rng.integers(0, 9), instances[at])
    return labels, instances, of[2]


def edits(rng: np.random.Generator, config: GeneratorConfig, count: int) -> Iterator[Map]:
    """A first map, then strokes, undo to the first map, other maps, other sizes and other styles."""
    step = 1 << config.upsamplings
    first = new_map(rng, config, config.height, config.width)
    last = first
    yield first
    for _ in range(count):
        kind = rng.choice(
            ["stroke", "two strokes", "undo", "swap", "resize", "style"], p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05]
        )
        height, width = last[0].shape[1:]
        if kind == "undo":
            last = first
        elif kind == "swap":
            last = new_map(rng, config, height, width)
        elif kind == "resize" and not config.style:
            last = new_map(rng, config, *(int(size) * step for size in rng.integers(1, 4, 2)))
        elif kind == "style" and config.style:
            last = (*last[:2], style_from_seed(int(rng.integers(4)))[None])
        else:
            last = edited(rng, config, last)
            if kind == "two strokes":
                last = edited(rng, config, last)
        yield last


# ---- The check ----


@dataclass(frozen=True)
class Case:
    """A generator, an ISA, the threads of both engines, and the store of the session's engine in bytes."""

    config: GeneratorConfig
    isa: str
    threads: int
    cache_bytes: int


def check(case: Case, seed: int, count: int) -> int:
    """`check_engines` on two cpu engines. Returns the drawings."""
    os.environ[ISA_VARIABLE] = case.isa
    precision = "bf16" if input_dtype(case.isa) == "bf16" else "fp32"  # type: ignore[arg-type]
    generator = trained_like(case.config)
    ours = CpuEngine(generator, precision, case.threads, cache_bytes=case.cache_bytes)
    anew = CpuEngine(generator, precision, 1, cache_bytes=0)
    del os.environ[ISA_VARIABLE]
    return check_engines(ours, anew, f"{case}, seed {seed}", seed, count)


def check_engines(ours: Engine, anew: Engine, what: str, seed: int, count: int) -> int:
    """Draw a sequence of edits in two sessions of one engine, and anew in another engine. Returns the drawings."""
    rng, config = np.random.default_rng(seed), ours.config
    sessions = ours.session(), ours.session()
    before: list[npt.NDArray[np.uint8] | None] = [None, None]
    sequences = [edits(rng, config, count) for _ in sessions]
    drawn = 0
    for number, maps in enumerate(itertools.zip_longest(*sequences)):
        for i, (session, one) in enumerate(zip(sessions, maps, strict=True)):
            inputs: Inputs = check_inputs(*one, config)
            image, changed = session.draw(inputs)
            expected = anew.run(inputs)[0]
            assert np.array_equal(image, expected), f"{what}, edit {number} of session {i}"
            old = before[i]
            if old is not None and old.shape == image.shape:
                outside = np.ones(image.shape[:2], bool)
                outside[changed.slices] = False
                assert np.array_equal(old[outside], image[outside]), f"{what}, edit {number}: {changed}"
            before[i] = image
            drawn += 1
        if number % 3 == 0:  # other requests use the store too
            other = check_inputs(*new_map(rng, config, config.height, config.width), config)
            assert np.array_equal(ours.run(other), anew.run(other))
    return drawn


def small(name: str, **change: object) -> GeneratorConfig:
    """A preset with few channels and small maps: its labels, edges, style, depth and norm are kept."""
    config = PRESETS[name]
    step = 1 << config.upsamplings
    size: dict[str, object] = {"height": 2 * step, "width": 3 * step, "nf": 6, "label_nc": min(config.label_nc, 9)}
    return replace(config, **(size | change))  # type: ignore[arg-type]


def cases(seed: int) -> Iterator[Case]:
    """Every preset, depth, conv size and norm on every ISA of this machine."""
    configs = [small(name, nf=nf) for name in PRESETS for nf in (4, 20)]
    configs += [small("coco", upsampling=depth, height=128, width=256) for depth in ("more", "most")]
    configs += [small("ade20k", spade_kernel=size) for size in (1, 5)]
    configs += [small("coco", norm="instance"), small("ade20k", height=32, width=32), small("ade20k", height=160)]
    for number, (config, isa) in enumerate(itertools.product(configs, supported_isas())):
        stores = (0, 200_000, 3_000_000, 512 << 20)
        yield Case(config, isa, 1 + (number + seed) % 2, stores[(number + seed) % len(stores)])


def main() -> None:
    """Check until the time is up."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end, drawn = time.monotonic() + options.seconds, 0
    for seed in itertools.count(options.seed):
        for case in cases(seed):
            drawn += check(case, seed, 12)
            if time.monotonic() > end:
                print(f"{drawn} drawings, all equal to drawing anew; last seed {seed}")
                return


if __name__ == "__main__":
    main()
