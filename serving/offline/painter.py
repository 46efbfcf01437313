"""Draws batches with one engine: what each worker of the pool does, and a process without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engines.choose import Choice, load_weights, start_engine
from serving.engines.contract import Engine, Inputs
from serving.offline.drawings import Batch, Drawing, Recipe
from serving.requests.images import encode_images, read_encoding, write_image
from serving.requests.map_files import read_inputs
from spade_core.files.manifest import sha256
from spade_core.maps.colours import ColourTable
from spade_core.models.style import style_from_seed


class RecipeError(RuntimeError):
    """A worker would draw other bits than its driver: other weights, or a processor without the instructions."""


@dataclass(frozen=True)
class Setting:
    """How to make an engine on any node.

    Attributes:
        weights: a checkpoint that every node sees, or None for seeded weights of `architecture`.
        choice: engine and precision.
        threads: of the engine.
        colours: a colour table that every node sees.
        format: of the images.
        out: folder of the images, which every node sees.
    """

    weights: Path | None
    architecture: str
    choice: Choice
    threads: int | None
    colours: Path | None
    format: str
    out: Path

    def start(self) -> tuple[Engine, Recipe]:
        """The engine, and what its images depend on."""
        engine = start_engine(load_weights(self.weights, self.architecture), self.choice, self.threads)
        weights = f"seeded {self.architecture}" if self.weights is None else sha256(self.weights)
        colours = "" if self.colours is None else sha256(self.colours)
        isa = str(getattr(engine, "isa", ""))
        return engine, Recipe(weights, engine.name, engine.precision, isa, self.format, colours)


class Painter:
    """An engine that draws batches into a folder.

    Args:
        recipe: what the driver named the files by. Raises RecipeError where this machine would draw other bits.
    """

    def __init__(self, setting: Setting, recipe: Recipe) -> None:
        self._engine, here = setting.start()
        if here != recipe:
            raise RecipeError(f"[ray] expected to draw with {recipe} but this node has {here}; leave it out of the run")
        self._out = setting.out
        self._colours = None if setting.colours is None else ColourTable.load(setting.colours)
        self._encoding = read_encoding({"format": setting.format})

    def draw(self, batch: Batch) -> dict[str, str]:
        """Draw a batch and write its images whole. Returns, by file, why an image is not there."""
        read: list[tuple[Drawing, Inputs]] = []
        failed: dict[str, str] = {}
        for drawing in batch:
            try:
                read.append((drawing, self._inputs(drawing)))
            except (ValueError, OSError) as error:
                failed[drawing.file] = str(error)
        if read:
            images = self._engine.run(Inputs.join([inputs for _, inputs in read]))
            for (drawing, _), image in zip(read, encode_images(images, self._encoding), strict=True):
                write_image(self._out / drawing.file, image)
        return failed

    def _inputs(self, drawing: Drawing) -> Inputs:
        """The maps of a drawing on Pillow's NEAREST grid, as `spade synthesize` reads files."""
        config = self._engine.config
        place = drawing.instances if config.instance_edges else None
        instances, name = (None, "") if place is None else (place.read(), place.path)
        style = None if drawing.seed is None else style_from_seed(drawing.seed)[None]
        return read_inputs(
            drawing.labels.read(), instances, config, colours=self._colours, style=style, instances_name=name
        )


Report = Callable[[Batch, dict[str, str], Any], None]
"""Hears of each finished batch: what failed of it, and who drew it."""


def draw_here(batches: list[Batch], setting: Setting, recipe: Recipe, report: Report) -> None:
    """Draw every batch in this process."""
    painter = Painter(setting, recipe)
    for batch in batches:
        report(batch, painter.draw(batch), None)
