"""A report beside an older report of the same kind: ratios of the rows that both have."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.report.intervals import Ratio, paired_ratio
from benchmarks.report.report import Report, ReportError, Row, key
from benchmarks.report.views import View

HIGHER_IS_BETTER = ("images_s", "psnr_db", "share")


@dataclass(frozen=True)
class Change:
    """One measure of one row. `slowdown` is above 1 where the new report is worse, whichever way the measure goes."""

    name: str
    case: str
    measure: str
    slowdown: Ratio

    def past(self, limit: float) -> bool:
        """True where the row is worse by more than `limit` (0.05: 5 %), and not by chance.

        By chance: the interval of 95 % holds 1. A row of a single turn has no interval, and its value alone decides.
        """
        return self.slowdown.value > 1 + limit and not self.slowdown.low <= 1


def compare(old: Report, new: Report, relative_to: str | None = None) -> list[Change]:
    """The changes from `old` to `new`, row by row and measure by measure.

    `relative_to` is the name of a contender that both reports hold, such as `openvino-fp32`. Each turn is divided by
    that contender's turn on the same case in the same report, so the speed of the machine cancels. Raises ReportError
    where the reports share no row, or lack the contender.
    """
    before = {key(row): row for row in old.rows}
    changes = []
    for row in new.rows:
        if (other := before.get(key(row))) is None or row["name"] == relative_to:
            continue
        for measure in row["measures"]:
            if measure not in other["measures"]:
                continue
            turns = [_turns(report, one, measure, relative_to) for report, one in ((new, row), (old, other))]
            if measure.endswith(HIGHER_IS_BETTER):
                turns.reverse()
            if (ratio := paired_ratio(*turns)) is not None:
                changes.append(Change(row["name"], row["case"], measure, ratio))
    if not changes:
        raise ReportError("[bench] expected a report that shares rows with the old one but none is in both")
    return changes


def _turns(report: Report, row: Row, measure: str, relative_to: str | None) -> list[float | None]:
    turns: list[float | None] = row["measures"][measure]
    if relative_to is None:
        return turns
    for other in report.rows:
        if key(other) == (relative_to, row["case"]) and measure in other["measures"]:
            under = other["measures"][measure]
            return [a / b if a is not None and b else None for a, b in zip(turns, under, strict=False)]
    raise ReportError(
        f"[bench] expected rows of {relative_to!r} on {row['case']} in both reports but one lacks them; "
        "leave --relative-to out, or name a contender of both"
    )


def changes_view(changes: list[Change], old: Report, limit: float | None) -> View:
    """The changes as a table. `limit` marks regressions."""
    rows = [
        (
            one.name, one.case, one.measure, f"{one.slowdown.value:.3f}",
            "" if one.slowdown.low != one.slowdown.low else f"{one.slowdown.low:.3f} .. {one.slowdown.high:.3f}",
            str(one.slowdown.turns), "REGRESSION" if limit is not None and one.past(limit) else "",
        )
        for one in changes
    ]  # fmt: skip
    title = f"against the report of {old.machine['date']}; above 1 is worse, 95 % interval over paired turns"
    return View(title, ("", "case", "measure", "ratio", "interval", "turns", "verdict"), rows, words=3)


def differences(old: Report, new: Report) -> list[str]:
    """What else differs between two reports and may explain a ratio: machine, versions, options, noise."""
    found = []
    for name in ("cpu", "cores"):
        if old.machine.get(name) != new.machine.get(name):
            found.append(f"{name}: {old.machine.get(name)} before, {new.machine.get(name)} now")
    versions = old.machine.get("versions", {}), new.machine.get("versions", {})
    for name in sorted(set(versions[0]) | set(versions[1])):
        if versions[0].get(name) != versions[1].get(name):
            found.append(f"{name}: {versions[0].get(name, 'none')} before, {versions[1].get(name, 'none')} now")
    for name in new.setup:
        if name in old.setup and old.setup[name] != new.setup[name]:
            found.append(f"option {name}: {old.setup[name]} before, {new.setup[name]} now")
    if old.noise.get("verdict") == "busy":
        found.append("the old report is of a busy machine")
    return found
