"""The scores of `spade evaluate` as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from trainer.evaluation.evaluate import Evaluation
    from trainer.evaluation.measures import Looks


def score_table(found: Evaluation) -> Table:
    """A row for each score, generated beside real; scores that were not asked for have no row."""
    from rich.table import Table

    table = Table("score", box=None)
    table.add_column("generated", justify="right")
    table.add_column("real images", justify="right")
    if found.generated is not None and found.real is not None:
        table.add_row("mIoU", f"{found.generated.miou:.3f}", f"{found.real.miou:.3f}")
        table.add_row("pixel accuracy", f"{found.generated.pixel_accuracy:.3f}", f"{found.real.pixel_accuracy:.3f}")
        for name in found.real.class_iou | found.generated.class_iou:
            ious = (side.class_iou.get(name) for side in (found.generated, found.real))
            table.add_row(f"  IoU of {name}", *("-" if iou is None else f"{iou:.3f}" for iou in ious))
    if found.fid is not None:
        table.add_row("FID", f"{found.fid:.2f}", "")
    if found.diversity is not None:
        one = found.diversity
        table.add_row(f"diversity ({one.styles} styles of {one.maps} maps)", f"{one.value:.4f}", "")
    _add_looks(table, found.looks)
    return table


def _add_looks(table: Table, looks: Looks) -> None:
    """Rows of the measures of looks; the column of real images holds what a perfect generator would have."""
    if looks.halves is not None:
        name = f"FID of halves of {looks.halves.images}, judge's features"
        table.add_row(name, f"{looks.halves.generated:.2f}", f"{looks.halves.real:.2f}")
    for period, one in looks.grid.generated.items():
        real = looks.grid.real[period]
        table.add_row(f"grid energy, period {period}", f"{one.energy:.2f}", f"{real.energy:.2f}")
        table.add_row("  peak above its surroundings", f"{one.peak:.2f}", f"{real.peak:.2f}")
    if looks.border is not None:
        table.add_row(f"error in the outer {looks.border.width} pixels", f"{looks.border.border:.2f}", "")
        table.add_row("  in the middle", f"{looks.border.middle:.2f}", "")
