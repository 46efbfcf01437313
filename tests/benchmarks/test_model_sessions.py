"""The model benchmark's rows of sessions: each kind times its own drawing, of the map of the turn."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.common.maps import read_maps
from benchmarks.common.stream import inputs_of
from benchmarks.model.command import _names
from benchmarks.model.contenders import OURS, SESSIONS, describe, session_kind
from benchmarks.model.run import Plan, Run
from benchmarks.model.sessions import session_turn
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.report import Report
from benchmarks.report.screen import Screen
from kernels.isa import supported_isas
from kernels.rectangles import Rectangle
from serving.engines.contract import Inputs, Pixels, Session
from serving.engines.cpu.engine import CpuEngine
from serving.engines.timings import Timings
from spade_core.config import preset
from spade_core.models.seeded import seeded_generator


def test_names_say_precision_and_kind() -> None:
    assert describe("cpu-bf16-edit") == ("cpu", "codebook", "bf16")
    assert (session_kind("cpu-bf16-edit"), session_kind("cpu-bf16")) == ("edit", "")
    assert _names("--engines", "auto") == OURS
    assert _names("--engines", "cpu-fp32,sessions") == ("cpu-fp32", *SESSIONS)


def test_a_session_draws_one_map_at_a_time() -> None:
    report = Report("model", {})
    run = Run(Plan(("cpu-fp32-edit",), (4,), 1, 1, 20.0), report, Screen(1), NoiseMeter())
    with ExitStack() as stack:
        run.load(None, stack)  # type: ignore[arg-type]
    assert run.workers == {}
    assert [(one.case, "one map at a time" in one.reason) for one in report.missing] == [("every batch", True)]


@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
@pytest.mark.parametrize(("kind", "drawings"), [("first", "www"), ("repeat", "w.."), ("edit", "wrrrrr")])
def test_each_kind_draws_what_it_says(kind: str, drawings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """w: a whole map in a new session, r: what changed, .: nothing."""
    config = replace(preset("coco"), nf=4, height=128, width=128)
    engine, maps, drawn = CpuEngine(seeded_generator(config)), read_maps(config, None, 1), list[str]()
    draw = Session.draw

    def noted(session: Session, inputs: Inputs, timings: Timings | None = None) -> tuple[Pixels, Rectangle]:
        timings = timings or Timings()
        image, changed = draw(session, inputs, timings)
        drawn.append("w" if not timings.redrawn_maps else "r" if changed.area else ".")
        return image, changed

    monkeypatch.setattr(Session, "draw", noted)
    seconds, image = session_turn(kind, engine, maps, 3, 2)
    assert len(seconds) == 2
    assert "".join(drawn) == drawings
    # A session gives pixels, which are truncated.
    assert np.abs(image - engine.image(*inputs_of(maps, 3, 1))).max() <= 1 / 127
