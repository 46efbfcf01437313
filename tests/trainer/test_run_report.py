"""Statistics and the report of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from small_run import small

from trainer.output.logs import Logs, read_rows
from trainer.output.report import write_report


def test_resuming_drops_the_rows_after_the_checkpoint(tmp_path: Path) -> None:
    logs = Logs(tmp_path, 0, small())
    for step in (2, 4, 6):
        logs.row({"step": step, "gan": 0.5})
        logs.scores({"step": step, "fid": math.nan})
    logs.close()
    for path in (logs.statistics, logs.validation):
        with path.open("a") as file:
            file.write('{"step": 8, "ga')  # killed while it wrote
        assert [row["step"] for row in read_rows(path)] == [2, 4, 6]
    Logs(tmp_path, 4, small()).close()
    assert [row["step"] for row in read_rows(logs.statistics)] == [2, 4]
    assert read_rows(logs.validation)[-1] == {"step": 4, "fid": None}, "NaN is not JSON"


def test_the_report_holds_everything_itself(tmp_path: Path) -> None:
    logs = Logs(tmp_path, 0, small())
    for step in range(1, 5):
        row = {"gan": 0.5, "pixel": 1 / step, "kl": 1e-3, "discriminator": 1.0, "score_real": 0.1, "score_fake": -0.1}
        logs.row({"step": step, "images": 2 * step, **row, "seconds": 900.0, "images_per_second": 3.0})
    logs.close()
    (tmp_path / "samples").mkdir()
    for step in range(1, 10):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "samples" / f"step-{step:08d}.png")
    html = write_report(tmp_path, small(run={"out": "a <run>"})).read_text()
    assert html.count("data:image/jpeg;base64,") == 6, "pictures spread over the run, the last among them"
    assert "step 9<" in html
    assert html.count("<polyline") == 7, "a panel for each curve: a small one keeps its own scale"
    assert "Encoder: KL divergence</figcaption>" in html
    assert "1.00 h" in html
    assert "http" not in html
    assert "a &lt;run&gt;" in html


def test_a_report_of_nothing_yet(tmp_path: Path) -> None:
    assert "No statistics yet" in write_report(tmp_path, small()).read_text()
