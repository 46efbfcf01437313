"""What is to be drawn: images named by their content, equal maps side by side, in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from serving.offline.sources import Item, Place

_READERS = 8
_NAME_VERSION = 1  # count up where equal drawings begin to give other bits


@dataclass(frozen=True)
class Recipe:
    """What an image depends on besides its maps and its style: equal recipes draw equal bits on any node.

    Attributes:
        weights: sha256 of the file of weights, or what names seeded ones.
        engine, precision, isa: that draw; `isa` is the tier of instructions, empty for an engine without one.
        format: of the files.
        colours: sha256 of the colour table, or empty.
    """

    weights: str
    engine: str
    precision: str
    isa: str
    format: str
    colours: str


@dataclass(frozen=True)
class Drawing:
    """One image: its file's name, its maps, and the seed of its style (None for a model without style input)."""

    file: str
    labels: Place
    instances: Place | None
    seed: int | None


@dataclass(frozen=True)
class Entry:
    """A line of the manifest: the image of a label map and a seed. `reason`: why there is none; empty where it is."""

    key: str
    seed: int | None
    file: str
    reason: str = ""


Batch = tuple[Drawing, ...]


def plan(
    items: Sequence[Item], seeds: Sequence[int] | None, recipe: Recipe, suffix: str
) -> tuple[list[Entry], list[Drawing]]:
    """The manifest's entries in the order of the items, and the drawings, equal maps side by side, each file once.

    `seeds` are those of an item without a seed of its own; None: the model has no style input. An item that cannot be
    read has an entry with the reason.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        hashes = list(readers.map(_hash_of, items))
    entries: list[Entry] = []
    drawings: dict[str, tuple[str, Drawing]] = {}
    for item, (hashed, reason) in zip(items, hashes, strict=True):
        for seed in _seeds_of(item, seeds):
            file = f"{_name(recipe, hashed, seed)}{suffix}" if not reason else ""
            entries.append(Entry(item.key, seed, file, reason))
            if file:
                drawings.setdefault(file, (hashed, Drawing(file, item.labels, item.instances, seed)))
    ordered = sorted(drawings.values(), key=lambda one: (one[0], one[1].seed or 0))
    return entries, [drawing for _, drawing in ordered]


def _seeds_of(item: Item, seeds: Sequence[int] | None) -> Sequence[int | None]:
    if seeds is None:
        return (None,)
    return seeds if item.seed is None else (item.seed,)


def _hash_of(item: Item) -> tuple[str, str]:
    """The hash of an item's maps, or why they cannot be read."""
    digest = hashlib.sha256()
    try:
        for place in (item.labels, item.instances):
            data = b"" if place is None else place.read()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    except (OSError, ValueError) as error:
        return "", str(error)
    return digest.hexdigest(), ""


def _name(recipe: Recipe, maps: str, seed: int | None) -> str:
    text = json.dumps([_NAME_VERSION, asdict(recipe), maps, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def batches(drawings: Sequence[Drawing], size: int) -> list[Batch]:
    """At most `size` drawings each."""
    return [tuple(drawings[first : first + size]) for first in range(0, len(drawings), size)]
