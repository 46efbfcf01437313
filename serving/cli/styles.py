"""The styles that `spade synthesize` draws in: options, the style of each image, and the sheet of several styles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from serving.cli.jobs import Job
    from spade_core.types import Style

ALL = "all"
_MOST = 64  # styles of a map
_ROWS = 24  # maps on a sheet


class Chosen(Protocol):
    """The options of one run that choose styles."""

    @property
    def style(self) -> Path | None: ...
    @property
    def style_name(self) -> str | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def seeds(self) -> range | None: ...
    @property
    def styles(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Offered:
    """What a model has: named styles, and whether it takes styles at all."""

    takes_style: bool
    named: Mapping[str, Style]


def seed_range(_context: click.Context, _parameter: click.Parameter, value: str | None) -> range | None:
    """`0:8` -> the seeds 0 .. 7. Raises BadParameter."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,18}):(\d{1,18})", value)
    seeds = range(int(found[1]), int(found[2])) if found else range(0)
    if not 0 < len(seeds) <= _MOST:
        raise click.BadParameter(f"expected FIRST:END with 1..{_MOST} seeds, such as 0:8, but got {value!r}")
    return seeds


def style_names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """`noon,winter` -> the names."""
    return () if value is None else tuple(name.strip() for name in value.split(","))


def refuse_styles(chosen: Chosen) -> None:
    """Refuse options that contradict each other; a photo's style may be sampled with a seed. Raises UsageError."""
    given = {
        "--style": chosen.style is not None, "--style-name": chosen.style_name is not None,
        "--seed": chosen.seed is not None and chosen.style is None, "--seeds": chosen.seeds is not None,
        "--styles": bool(chosen.styles),
    }  # fmt: skip
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise click.UsageError(f"{', '.join(names)}: expected one of them; leave the others out")


def styled_jobs(jobs: Sequence[Job], chosen: Chosen, offered: Offered) -> list[Job]:
    """The jobs with the style or seed of each image; several styles make several images of a map.

    Without an option, image i has seed i, and the first one the style `noon` where the model has it. Raises UsageError.
    """
    from serving.protocol import DEFAULT_STYLE

    if not offered.takes_style:
        if chosen.style_name is not None or chosen.seeds is not None or chosen.styles:
            raise click.UsageError("--style-name, --seeds, --styles: the model has no style input; leave them out")
        return list(jobs)
    if chosen.style is not None or chosen.seed is not None:
        return list(jobs)
    if chosen.style_name is not None:
        return [replace(job, style=_named(offered, chosen.style_name, "--style-name")) for job in jobs]
    if chosen.seeds is not None:
        return [replace(job, seed=seed, out=_out(job, f"seed{seed}")) for job in jobs for seed in chosen.seeds]
    if chosen.styles:
        names = tuple(offered.named) if chosen.styles == (ALL,) else chosen.styles
        if not names:
            raise click.UsageError("--styles all: the weights hold no named styles; give --seeds 0:8")
        drawn = {name: _named(offered, name, "--styles") for name in names}
        return [replace(job, style=one, out=_out(job, name)) for job in jobs for name, one in drawn.items()]
    found = [replace(job, seed=i) for i, job in enumerate(jobs)]
    if DEFAULT_STYLE in offered.named and found:
        found[0] = replace(found[0], style=offered.named[DEFAULT_STYLE], seed=None)
    return found


def write_sheet(jobs: Sequence[Job], out: Path) -> Path:
    """Write sheet.png: a row for each map and a column for each style, of the images that were written."""
    from PIL import Image

    rows: dict[Path, list[Path]] = {}
    for job in jobs:
        rows.setdefault(job.labels, []).append(job.out)
    shown = list(rows.values())[:_ROWS]
    first = next((path for row in shown for path in row if path.exists()), None)
    if first is None:
        raise click.ClickException("[synthesize] expected images for the sheet but none was written")
    with Image.open(first) as image:
        width, height = image.size
    sheet = Image.new("RGB", (width * max(map(len, shown)), height * len(shown)), "white")
    for y, row in enumerate(shown):
        for x, path in enumerate(row):
            if path.exists():
                with Image.open(path) as image:
                    sheet.paste(image.convert("RGB"), (x * width, y * height))
    path = out / "sheet.png"
    sheet.save(path)
    return path


def _named(offered: Offered, name: str, option: str) -> Style:
    if name not in offered.named:
        known = ", ".join(offered.named) or "none, since the weights hold no named styles"
        raise click.UsageError(f"{option}: expected a name out of: {known}, but got {name!r}")
    return offered.named[name]


def _out(job: Job, ending: str) -> Path:
    return job.out.with_name(f"{job.out.stem}-{ending}{job.out.suffix}")
