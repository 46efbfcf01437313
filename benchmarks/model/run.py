"""The whole generator against its peers on the same weights and label maps.

All engines and peers are loaded at once and take turns, batch by batch, so that a ratio compares neighbours in time:
clock and load of the machine change more within minutes than most changes of an engine do. All start from labels and
instances. The times of PyTorch and of our engines include the checks of a request; the times of other peers do not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.common.errors import image_error
from benchmarks.common.loaded_process import LoadedProcess
from benchmarks.model.contenders import OURS, REFERENCE, describe, session_kind
from benchmarks.model.worker import Setting, load_turn
from benchmarks.report.noise import NoiseMeter, first_turn
from benchmarks.report.report import Missing, Report, Row
from benchmarks.report.screen import Screen
from spade_core.types import Array


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        names: engines and peers, in the order of a turn.
        batches: batch sizes, ascending.
        turns: turns of each batch size; every contender runs the same maps in a turn.
        repeats: timed calls in a turn; a turn counts by its median.
        most_call_s: a contender is left out at a batch size where a call would take longer.
    """

    names: tuple[str, ...]
    batches: tuple[int, ...]
    turns: int
    repeats: int
    most_call_s: float


@dataclass
class Result:
    """One contender at one batch size: seconds of each turn and call, and (max error, PSNR) of each turn."""

    turns: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    errors: list[tuple[float, float]] = field(default_factory=list)


def row_of(name: str, batch: int, result: Result) -> Row:
    """The row of one contender. Times are seconds of a batch; errors are against PyTorch's float32 dense form."""
    engine, form, precision = describe(name)
    return {
        "name": name, "case": f"batch {batch}", "engine": engine, "form": form, "precision": precision, "batch": batch,
        "seconds_median": float(np.median(result.calls)), "seconds_min": min(result.calls),
        "seconds_max": max(result.calls),
        "max_error": max((error for error, _ in result.errors), default=None),
        "psnr_db": mean_psnr([psnr for _, psnr in result.errors]),
        "measures": {"seconds": result.turns},
    }  # fmt: skip


def mean_psnr(values: Sequence[float]) -> float | None:
    """The PSNR of the mean squared error of all turns; None without turns, and for equal images."""
    errors = [10 ** (-value / 10) for value in values]
    return round(float(-10 * np.log10(np.mean(errors))), 1) if errors and any(errors) else None


class Run:
    """The turns of a plan. `report` grows row by row, so that an interrupted run keeps what it measured."""

    def __init__(self, plan: Plan, report: Report, screen: Screen, noise: NoiseMeter) -> None:
        self.plan, self.report, self.screen, self.noise = plan, report, screen, noise
        self.workers: dict[str, LoadedProcess] = {}
        self.per_image: dict[str, float] = {}

    def load(self, setting: Setting, stack: ExitStack) -> None:
        """Load every contender in a process of its own. One that does not load is missing, with the reason."""
        for name in self.plan.names:
            if session_kind(name) and 1 not in self.plan.batches:
                reason = "expected batch 1, since a session draws one map at a time, but got others; add 1 to --batches"
                self.report.missing.append(Missing(name, "every batch", reason))
                continue
            self.screen.step(f"loading {name}")
            try:
                self.workers[name] = stack.enter_context(closing(LoadedProcess(name, load_turn, name, setting)))
            except RuntimeError as error:
                self.report.missing.append(Missing(name, "every batch", str(error)))

    def measure(self, batch: int, changed: Callable[[], None]) -> None:
        """All turns at one batch size. `changed` hears of each turn that ended."""
        results = {name: Result() for name in self.workers if self._fits(name, batch)}
        for turn in range(self.plan.turns):
            self.screen.step(f"batch {batch}, turn {turn + 1} of {self.plan.turns}")
            self.noise.sample()
            reference: Array | None = None
            for name in _in_turn(list(results), turn):
                images = self._turn(name, batch, turn, results)
                if images is not None and name == REFERENCE:
                    reference = images
                elif images is not None and reference is not None:
                    results[name].errors.append(image_error(images, reference))
            rows = [row_of(name, batch, one) for name, one in results.items() if one.turns]
            self.report.rows = [row for row in self.report.rows if row["batch"] != batch] + rows
            changed()
        for name, one in results.items():
            self.per_image[name] = float(np.median(one.calls)) / batch if one.calls else 0.0

    def _turn(self, name: str, batch: int, turn: int, results: dict[str, Result]) -> Array | None:
        """One contender's turn: its images, or None where it failed and is missing from now on."""
        try:
            seconds, images = self.workers[name].call(turn * batch, batch, self.plan.repeats)
        except RuntimeError as error:
            self.report.missing.append(Missing(name, f"batch {batch}", str(error)))
            del self.workers[name], results[name]
            return None
        results[name].turns.append(float(np.median(seconds)))
        results[name].calls += seconds
        assert isinstance(images, np.ndarray)
        return images

    def _fits(self, name: str, batch: int) -> bool:
        if session_kind(name) and batch > 1:
            return False
        seconds = self.per_image.get(name, 0.0) * batch
        if seconds <= self.plan.most_call_s:
            return True
        reason = f"a call would take about {seconds:.0f} s, more than --most-call {self.plan.most_call_s:g}"
        self.report.missing.append(Missing(name, f"batch {batch}", reason))
        return False


def _in_turn(names: list[str], turn: int) -> Iterator[str]:
    """The reference first, then the others, beginning with another one each turn."""
    yield from (name for name in names if name == REFERENCE)
    others = [name for name in names if name != REFERENCE]
    start = turn % max(1, len(others))
    yield from others[start:] + others[:start]


def measure(plan: Plan, setting: Setting, report: Report, changed: Callable[[], None], screen: Screen) -> None:
    """Run the plan into `report`. `setting.onnx` is left open: the graph is exported to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        setting = replace(setting, onnx=Path(folder, "dense.onnx"))
        if any(describe(name)[0] in {"onnxruntime", "openvino"} for name in plan.names):
            _export(setting, screen)
        noise = NoiseMeter()
        run = Run(plan, report, screen, noise)
        run.load(setting, stack)
        for batch in plan.batches:
            run.measure(batch, changed)
        report.noise = noise.finish() | {"first_turn": first_turn(report.rows)}


def _export(setting: Setting, screen: Screen) -> None:
    from export.onnx import export_graph
    from serving.engines.choose import load_checkpoint

    screen.step("exporting the dense graph to ONNX")
    export_graph(load_checkpoint(setting.weights, setting.preset_name).generator, setting.onnx, "dense")


def fastest_of_ours(rows: Sequence[Row]) -> Row | None:
    """Our fastest engine among rows of one batch size."""
    ours = [row for row in rows if row["name"] in OURS]
    return min(ours, key=lambda row: float(row["seconds_median"]), default=None)
