"""`spade check`: the contents of a data set, and its bad files."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, progress_bar, say, stdout
from serving.cli.options import FILE, FOLDER, LAYOUTS, OUT_FOLDER
from spade_core.config import CUSTOM, PRESETS, GeneratorConfig

if TYPE_CHECKING:
    from trainer.data.check import DataSet, Report

_SIZES = 8  # sizes that are listed, the most frequent first


@click.command(cls=Command, short_help="Read a data set: bad files, classes, sizes.")
@click.argument("data", type=FOLDER)
@click.option(
    "--layout", type=click.Choice(LAYOUTS),
    help="What DATA holds; `folder` is labels/, images/ and, where the model reads edges, instances/.  "
    "[default: as --config says, else folder]",
)  # fmt: skip
@click.option(
    "--preset", type=click.Choice(list(PRESETS)),
    help="The model that is to read DATA: its ids are checked.  [default: the layout's own; for `folder` none]",
)  # fmt: skip
@click.option("--classes", type=click.IntRange(1, 256), help="Instead of a preset, classes of your own: 0 .. N - 1.")
@click.option("--colours", type=FILE, help="For RGB label maps: a CSV `id,r,g,b,name` or JSON colour table.")
@click.option(
    "--config", type=FILE,
    help="A training configuration that gives model, layout and colours, in place of the options above.",
)  # fmt: skip
@click.option(
    "--out", type=OUT_FOLDER, default=Path("out/check"), show_default=True,
    help="Folder of contact_sheet.png.",
)  # fmt: skip
def check(
    data: Path, layout: str | None, preset: str | None, classes: int | None, colours: Path | None, config: Path | None,
    out: Path,
) -> None:  # fmt: skip
    """Read a whole data set as training does: list every bad file, classes, sizes and pairs, and draw a contact sheet.

    \b
    spade check own-data/ --classes 12
    spade check own-data/ --colours colours.csv
    spade check own-data/ --config configs/own-data.toml
    spade check datasets/cityscapes --layout cityscapes

    Exit status: 0 every file is good, 1 some are not or there is none, 2 wrong usage, 130 interrupted.
    """
    if preset is not None and classes is not None:
        raise click.UsageError("--classes: a preset has its own classes; give --preset or --classes")
    from spade_core.maps.colours import ColourTable
    from trainer.data.check import DataSet, check_data, find_pairs

    if config is not None:
        if (layout, preset, classes, colours) != (None, None, None, None):
            raise click.UsageError("--config: gives the model, layout and colours; leave the other options out")
        data_set = _configured(config, data)
    else:
        table, layout = None if colours is None else ColourTable.load(colours), layout or LAYOUTS[0]
        data_set = DataSet(layout, data, _model(layout, data, preset, classes), table)
    pairs = find_pairs(data_set)
    with progress_bar("label maps", len(pairs)) as advance:
        report = check_data(data_set, pairs, advance)
    _show(report, data_set)
    if report.sheet is not None:
        out.mkdir(parents=True, exist_ok=True)
        report.sheet.save(out / "contact_sheet.png")
        say(f"{out / 'contact_sheet.png'} written")
    if report.bad:
        sys.exit(1)


def _configured(file: Path, data: Path) -> DataSet:
    from spade_core.maps.colours import ColourTable
    from trainer.config_file import load_config
    from trainer.data.check import DataSet

    run = load_config(file)
    if run.data.layout == "scenes":
        raise click.UsageError(f"--config: '{file}' draws scenes and reads no files; give data.layout in the file")
    colours = ColourTable.load(Path(run.data.colours)) if run.data.colours else None
    return DataSet(run.data.layout, data, run.model, colours)


def _model(layout: str, data: Path, preset: str | None, classes: int | None) -> GeneratorConfig | None:
    if classes is not None:
        from trainer.data.layouts import has_instances

        edges = has_instances(layout, data)
        return replace(PRESETS["demo"], preset=CUSTOM, label_nc=classes, instance_edges=edges)
    return PRESETS.get(preset or layout)


def _show(report: Report, data: DataSet) -> None:
    from rich.markup import escape
    from rich.table import Table

    from trainer.data.check import names_of

    names, total = names_of(data), max(1, int(report.pixels.sum()))
    table = Table("id", "class", box=None)
    table.add_column("share of pixels", justify="right")
    table.add_column("label maps", justify="right")
    for label in report.pixels.nonzero()[0]:
        share = f"{report.pixels[label] / total:.2%}"
        table.add_row(str(label), escape(names[label]), share, str(report.maps[label]))
    stdout().print(table)
    if data.config is not None:
        absent = [f"{i} {names[i]}" for i in range(data.config.label_nc) if not report.pixels[i]]
        say(f"classes in no label map: {', '.join(absent) or 'none'}")
    sizes = [f"{width}x{height} ({count})" for (height, width), count in report.sizes.most_common(_SIZES)]
    if more := len(report.sizes) - len(sizes):
        sizes.append(f"and {more} more")
    say(f"sizes, width x height: {', '.join(sizes) or 'none'}")
    partners = "photo and instance map" if data.instances else "photo"
    say(f"{report.label_maps - len(report.bad)} of {report.label_maps} label maps are good, with their {partners}")
    for one in report.bad:
        say(f"bad: {one.path}: {one.reason}")
