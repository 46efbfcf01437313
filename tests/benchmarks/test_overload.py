"""The overload benchmark: goodput of made-up requests, and a short run beside Triton's own batcher."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from jsonschema import validate

from benchmarks.load.figures import Window
from benchmarks.load.loops import Shot
from benchmarks.overload import picture
from benchmarks.overload.peer import peer_config
from benchmarks.overload.scenarios import flood_row, goodput, overload_row
from kernels.isa import supported_isas
from serving.protocol import RequestTimings
from serving.triton.model_config import ModelOptions
from spade_core.config import GeneratorConfig
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

SCHEMA = json.loads((Path(__file__).parents[2] / "benchmarks/report/schema.json").read_text())
TINY = GeneratorConfig("tiny", 8, True, False, 64, 64, 4, "normal", "batch", 3, False, "spade")


def shot(latency: float, outcome: str = "ok", client: str = "") -> Shot:
    timings = RequestTimings(0.1, 0.1, 0.1, 0.1, 0.5, 1, 0.2) if outcome == "ok" else None
    return Shot(0.0, 0.0, latency, outcome, 1, timings, client)  # type: ignore[arg-type]


def test_goodput_counts_what_was_answered_in_time() -> None:
    window = Window([shot(0.5), shot(1.5), shot(3.0), shot(0.01, "refused"), shot(2.0, "timed out")], 0.0, 2.0)
    assert goodput(window, 2.0) == 1.0
    row = overload_row([window], 2.0)
    assert row["goodput_images_s"] == 1.0
    assert row["answered_in_time"] == pytest.approx(2 / 3)
    assert (row["refused"], row["timed_out"], row["refusal_p50_s"]) == (1, 1, 0.01)


def test_what_waits_at_the_end_of_the_window_is_no_goodput() -> None:
    """A queue that fills takes more than the server can answer at that rate."""
    window = Window([shot(0.5), replace(shot(2.9), due_s=1.9), replace(shot(1.0), due_s=-1.5)], 0.0, 2.0)
    assert goodput(window, 2.0) == pytest.approx(0.5)
    assert goodput(window, 3.0) == pytest.approx(1.0)  # of a request that was due before the window


def test_the_small_client_is_told_apart_from_the_flood() -> None:
    from benchmarks.common.maps import Maps
    from benchmarks.common.stream import Stream
    from benchmarks.overload.scenarios import Setting

    setting = Setting(Maps(None, None, None, None), Stream(), 1.0, 2.0, 0.0)  # type: ignore[arg-type]
    row = flood_row([shot(0.2, client="small"), shot(0.4, client="small"), shot(9.0, client="flood")], setting)
    assert (row["small_p50_s"], row["small_p99_s"], row["flood_p50_s"]) == (0.2, 0.4, 9.0)


def test_the_peers_queue_has_our_bounds() -> None:
    config = peer_config(ModelOptions(queue_size=7, queue_timeout_s=2.5, queue_delay_us=300))
    assert text_format.MessageToString(config.dynamic_batching) == (
        "max_queue_delay_microseconds: 300\ndefault_queue_policy {\n  default_timeout_microseconds: 2500000\n"
        "  allow_timeout_override: true\n  max_queue_size: 7\n}\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_a_short_run_beside_tritons_own_batcher(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors", seeded_generator(TINY))
    arguments = ["--servers", "triton-batcher,direct", "--doors", "grpc", "--shares", "0.3,3", "--deadline", "0.3",
                 "--seconds", "0.5", "--rounds", "1", "--floods", "1", "--weights", "w.safetensors", "--precision",
                 "fp32", "--threads", "1", "--json", "o.json"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "benchmarks.overload", *arguments], check=True, cwd=tmp_path)
    drawn = CliRunner().invoke(picture.main, [str(tmp_path / name) for name in ("o.json", "new/o.svg")])
    assert drawn.exit_code == 0, drawn.output
    report = json.loads((tmp_path / "o.json").read_text())
    validate(report, SCHEMA)
    assert report["missing"] == []
    cases = ["30% of capacity", "300% of capacity", "0 clients of batch 8", "1 clients of batch 8"]
    assert [(row["name"], row["case"]) for row in report["rows"]] == [
        (name, case) for name in ("triton-batcher grpc", "direct grpc") for case in cases
    ]
    for row in report["rows"]:
        if row["scenario"] == "overload":
            assert row["requests"] == row["answered"] + row["refused"] + row["timed_out"]
            assert 0 <= row["goodput_images_s"] <= row["images_s"]
            assert row["capacity_images_s"] > 0
        else:
            assert (row["small_p50_s"] is None) == (row["small_requests"] == row["small_refused"])
    assert "direct grpc" in (tmp_path / "new" / "o.svg").read_text()
