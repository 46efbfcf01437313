"""Reports of `spade bench`: reading, intervals, comparison with an older report, noise, documents."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import validate

from benchmarks.report.compare import compare, differences
from benchmarks.report.document import markdown, page
from benchmarks.report.intervals import paired_ratio
from benchmarks.report.noise import NoiseMeter, _tree_seconds, first_turn, noise_line
from benchmarks.report.output import Drawn, Output, finish
from benchmarks.report.plots import Plot, svg
from benchmarks.report.report import Missing, Report, ReportError, Row
from benchmarks.report.views import View, missing_view, ms
from serving.cli.main import main

SCHEMA = json.loads((Path(__file__).parents[2] / "benchmarks/report/schema.json").read_text())
CALM = {
    "verdict": "calm", "reasons": [], "load": [0.1, 0.2], "others_cores": 0.01, "steal_share": 0.0,
    "clock_spread": 0.02, "processes": [],
}  # fmt: skip


def row(name: str, seconds: list[float], case: str = "batch 1") -> Row:
    return {"name": name, "case": case, "measures": {"seconds": list(seconds)}}


def report(*rows: Row) -> Report:
    return Report("model", {"threads": 2}, list(rows), noise=dict(CALM))


# ---- Intervals ----


def test_a_ratio_is_over_paired_turns() -> None:
    """Each turn's state of the machine is in both values, and leaves no trace in the ratio."""
    machine = np.array([1.0, 5.0, 0.2, 3.0])
    ratio = paired_ratio(list(2 * machine), list(machine))
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high, ratio.turns) == pytest.approx((2, 2, 2, 4))


def test_the_interval_holds_the_truth_in_most_runs() -> None:
    """95 of 100 intervals should hold the true ratio; the percentile interval of 12 turns falls a little short."""
    random, inside = np.random.default_rng(1), 0
    for _ in range(200):
        turns = np.exp(random.normal(np.log(1.3), 0.2, 12))
        ratio = paired_ratio(list(turns), [1.0] * 12)
        assert ratio is not None
        inside += ratio.low <= 1.3 <= ratio.high
    assert 170 <= inside <= 199


def test_turns_that_were_not_measured_are_left_out() -> None:
    ratio = paired_ratio([2.0, None, 4.0], [1.0, 1.0, None])
    assert ratio is not None
    assert (ratio.value, ratio.turns) == (2.0, 1)
    assert np.isnan(ratio.low)
    assert str(ratio) == "2.00x"
    assert paired_ratio([None], [1.0]) is None


# ---- Comparison ----


def test_a_row_that_is_worse_without_doubt_is_a_regression() -> None:
    old = report(row("a", [1.0, 1.1, 0.9, 1.0]), row("b", [1.0, 1.0, 1.0, 1.0]), row("gone", [1.0]))
    new = report(row("a", [1.2, 1.3, 1.1, 1.2]), row("b", [0.5, 2.2, 0.6, 1.9]), row("new", [1.0]))
    slower, noisy = compare(old, new)
    assert slower.past(0.05)
    assert not slower.past(0.5)
    assert noisy.slowdown.value > 1.05
    assert not noisy.past(0.05), "its interval holds 1"


def test_higher_is_better_for_rates() -> None:
    old, new = report(row("a", [])), report(row("a", []))
    old.rows[0]["measures"], new.rows[0]["measures"] = {"images_s": [10.0, 10.0]}, {"images_s": [5.0, 5.0]}
    assert compare(old, new)[0].slowdown.value == pytest.approx(2)


def test_a_slower_machine_cancels_beside_a_contender_of_both_runs() -> None:
    old = report(row("ours", [1.0, 1.0]), row("peer", [4.0, 4.0]))
    new = report(row("ours", [3.0, 3.0]), row("peer", [12.0, 12.0]))
    assert compare(old, new)[0].slowdown.value == pytest.approx(3)
    (change,) = compare(old, new, relative_to="peer")
    assert change.slowdown.value == pytest.approx(1)
    with pytest.raises(ReportError, match="expected rows of 'absent' on batch 1 in both reports"):
        compare(old, new, relative_to="absent")


def test_reports_without_a_common_row_are_refused() -> None:
    with pytest.raises(ReportError, match="expected a report that shares rows"):
        compare(report(row("a", [1.0])), report(row("a", [1.0], case="batch 2")))


def test_what_else_changed_is_told() -> None:
    old, new = report(), report()
    old.machine["cpu"], old.setup, old.noise["verdict"] = "another", {"threads": 8}, "busy"
    told = differences(old, new)
    assert any(text.startswith("cpu: another before") for text in told)
    assert {"option threads: 8 before, 2 now", "the old report is of a busy machine"} <= set(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a report of `spade bench` in"),
        ("[]", "with schema spade-bench/1 in .* but got None"),
        ('{"schema": "spade-bench/0"}', "but got 'spade-bench/0'; measure it again"),
    ],
)
def test_a_file_that_is_no_report_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(ReportError, match=message):
        Report.read(tmp_path / "old.json")


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = report(row("a", [1.0]))
    written.missing.append(Missing("b", "batch 1", "no such processor"))
    written.write(tmp_path / "new" / "report.json")
    validate(json.loads((tmp_path / "new" / "report.json").read_text()), SCHEMA)
    assert Report.read(tmp_path / "new" / "report.json", "model") == written
    with pytest.raises(ReportError, match=r"expected a report of `spade bench server` in .* but got one of .* model"):
        Report.read(tmp_path / "new" / "report.json", "server")


def test_a_regression_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = report(row("a", [1.0, 1.0])), report(row("a", [1.2, 1.2]))
    drawn = Drawn(lambda _report: [], lambda _report: [])
    finish(new, drawn, Output(None, tmp_path / "r.md", None, tmp_path / "old.json", None, 0.5), old)
    assert "1.200" in (tmp_path / "r.md").read_text()
    with pytest.raises(SystemExit, match="1"):
        finish(new, drawn, Output(None, None, None, tmp_path / "old.json", None, 0.05), old)
    captured = capsys.readouterr()
    assert "REGRESSION" in captured.out
    assert "error: 1 of 1 measures are worse by more than 5.0%" in captured.err


# ---- Noise ----


def test_other_programs_make_a_machine_busy() -> None:
    """A program of no kin of ours computes for half a second."""
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
    work = "import time; end = time.monotonic() + 0.6\nwhile time.monotonic() < end: pass"
    meter = NoiseMeter()
    subprocess.run([sys.executable, "-c", code, work], check=True)  # its parent ends, so it is an orphan
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.8)"], check=True)
    noise = meter.finish()
    validate(report().__dict__ | {"schema": "spade-bench/1", "noise": noise}, SCHEMA)
    assert noise["verdict"] == "busy"
    assert "other programs used" in noise["reasons"][0]
    assert noise_line(noise).startswith("BUSY MACHINE: other programs used")


def test_a_slow_first_turn_is_told() -> None:
    rows = [row("a", [1.5, 1.0, 1.0, 1.1]), row("b", [1.3, 1.0, 1.0]), row("c", [9.0, 1.0])]
    assert first_turn(rows) == pytest.approx(0.4)
    assert noise_line(CALM | {"first_turn": 0.4}).endswith("; the first turn took 40% longer than later ones")
    assert "first turn" not in noise_line(CALM | {"first_turn": None})


def test_the_work_of_a_child_that_ended_is_our_own() -> None:
    before = _tree_seconds()
    subprocess.run([sys.executable, "-c", "for _ in range(3 * 10**6): pass"], check=True)
    assert _tree_seconds() - before > 0.02


# ---- Documents ----


def test_documents_hold_text_as_text() -> None:
    views = [View("a <title>", ("name", "x"), [("<b>|", "1")]), missing_view([Missing("b", "batch 1", "no & why")])]
    of = report(row("a", [1.0]))
    assert "| <b>\\| | 1 |" in markdown(of, views)
    html = page(of, views, [Plot("lines", "caption", "x", "y", {"s": ([1, 2], [3, 4])})])
    assert "&lt;b&gt;|" in html
    assert "no &amp; why" in html
    assert "calm machine" in html


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [0.5], [1.0, 1.0], [0.1, 5.0, 90.0]])
def test_a_distribution_is_drawn_of_any_values(values: list[float]) -> None:
    drawn = svg(Plot("distribution", "", "ms", "", {"a request": (values, [])} if values else {"none": ([], [])}))
    assert drawn.startswith("<svg ")
    assert "share at or below" in drawn


def test_milliseconds_keep_three_digits() -> None:
    assert [ms(value) for value in (0.00123, 0.0123, 1.234, None)] == ["1.23", "12.3", "1234", ""]


# ---- The command ----


def test_bench_is_found_by_its_entry_point_and_listed() -> None:
    listed = CliRunner().invoke(main, ["--help"])
    assert "bench       Measure latency on this machine." in listed.output
    shown = CliRunner().invoke(main, ["bench", "--help"])
    assert all(f"  {name} " in shown.output for name in ("model", "kernels", "export"))


@pytest.mark.parametrize("option", ["--max-regression=0.05", "--relative-to=onnxruntime"])
def test_options_of_a_comparison_need_the_old_report(option: str) -> None:
    done = CliRunner().invoke(main, ["bench", "model", option])
    assert done.exit_code == 2
    assert "give --compare OLD.json too" in done.output
