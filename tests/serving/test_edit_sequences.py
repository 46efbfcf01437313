"""The cpu engine's sessions: random edits have the bits of drawing anew, within the memory that they may take."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from edit_sequences import Case, cases, check, edited, new_map, small
from generators import trained_like

from kernels.isa import supported_isas
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Session, check_inputs
from serving.engines.cpu import program as cpu_program
from serving.engines.cpu.engine import CpuEngine
from serving.engines.cpu.reach import changed_symbols
from serving.engines.cpu.session import CpuSession
from serving.engines.timings import Timings
from spade_core.models.style import style_from_seed

pytestmark = pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")

CASES = list(cases(1))


@pytest.mark.parametrize("case", CASES[::5], ids=lambda c: f"{c.config.preset}-{c.isa}")
def test_random_edits_have_the_bits_of_drawing_anew(case: Case) -> None:
    assert check(case, 1, 4) == 10


def test_convs_of_large_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_program, "LARGE", 1)
    for case in (Case(small("coco", nf=20), supported_isas()[-1], 2, 512 << 20), CASES[1]):
        check(case, 2, 4)


def test_an_edit_computes_its_rectangle_and_its_new_patches_only() -> None:
    config = small("ade20k", height=128, width=128)
    engine, rng = CpuEngine(trained_like(config)), np.random.default_rng(0)
    session = engine.session()
    labels, _, _ = new_map(rng, config, 128, 128)
    session.draw(check_inputs(labels, None, None, config))
    known = engine._codebooks.store.horizons([0] * 6)
    image, changed = session.draw(check_inputs(labels, None, None, config))
    assert changed == EMPTY
    assert image.flags.writeable is False
    labels = labels.copy()
    labels[0, 65, 67] = (labels[0, 65, 67] + 1) % 9  # a pixel that only the last level samples
    _, changed = session.draw(check_inputs(labels, None, None, config))
    assert changed == Rectangle(60, 62, 72, 74)  # 5 px in each direction, and even edges
    assert engine._codebooks.store.horizons([0] * 6)[:-1] == known[:-1]


def test_restyling_keeps_plan_and_entries() -> None:
    config = replace(small("demo"), height=64, width=64)
    engine, timings = CpuEngine(trained_like(config)), Timings()
    labels = new_map(np.random.default_rng(0), config, 64, 64)[0]
    session = engine.open(labels, None, style_from_seed(0)[None])
    image, changed = session.restyle(style_from_seed(1)[None], timings)
    assert np.array_equal(image, engine.synthesize(labels, None, style_from_seed(1)[None])[0])
    assert changed == Rectangle(0, 0, 64, 64)
    assert timings.codebook_s == 0


def test_a_patch_of_an_earlier_map_is_not_computed_again() -> None:
    config = small("ade20k", height=64, width=64)
    engine, rng = CpuEngine(trained_like(config)), np.random.default_rng(0)
    first = new_map(rng, config, 64, 64)
    second = edited(rng, config, first)
    engine.run(check_inputs(*first, config))
    maps = engine._codebooks.plan(check_inputs(*second, config).symbols, ["second"], Timings())  # type: ignore[list-item]
    new = sum(len(level.patches5) for level in engine._codebooks.store.new_patches())
    engine._codebooks.make(maps, Timings())
    assert 0 <= new < sum(maps.maps[0].rows) / 2


def test_a_call_that_fails_leaves_no_patch_without_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("ade20k", height=64, width=64)
    generator = trained_like(config)
    engine, anew = CpuEngine(generator), CpuEngine(generator, cache_bytes=0)
    of = check_inputs(*new_map(np.random.default_rng(0), config, 64, 64), config)
    session = engine.session()
    session.draw(of)
    other = check_inputs(*new_map(np.random.default_rng(5), config, 64, 64), config)
    with monkeypatch.context() as patch:
        patch.setattr(engine._codebooks._program, "run", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.run(other)
        with pytest.raises(ZeroDivisionError):
            session.draw(other)
    assert np.array_equal(engine.run(other), anew.run(other))
    assert np.array_equal(session.draw(of)[0], anew.run(of)[0])


# ---- Memory ----


def test_the_session_used_longest_ago_loses_its_maps() -> None:
    config = small("ade20k", height=64, width=64)
    generator, rng = trained_like(config), np.random.default_rng(0)
    probe = CpuEngine(generator)
    of = check_inputs(*new_map(rng, config, 64, 64), config)
    kept = probe.session()
    kept.draw(of)
    assert isinstance(kept, CpuSession)
    size = probe._kept.bytes
    engine = CpuEngine(generator, session_bytes=int(2.5 * size))
    sessions = [engine.session() for _ in range(3)]
    for session in sessions:
        session.draw(of)
        assert engine._kept.bytes <= 2.5 * size
    assert [session in engine._kept._of for session in sessions] == [False, True, True]
    assert np.array_equal(sessions[0].draw(of)[0], probe.run(of)[0])
    assert [session in engine._kept._of for session in sessions] == [True, False, True]
    del session, sessions
    gc.collect()
    assert engine._kept.bytes == 0, "a session that nobody holds keeps no maps"


def test_a_session_without_room_draws_anew() -> None:
    config = small("ade20k", height=64, width=64)
    engine = CpuEngine(trained_like(config), session_bytes=1000)
    of = check_inputs(*new_map(np.random.default_rng(0), config, 64, 64), config)
    session = engine.session()
    assert np.array_equal(session.draw(of)[0], engine.run(of)[0])
    assert engine._kept.bytes == 0


def test_instance_norm_has_plain_sessions() -> None:
    assert type(CpuEngine(trained_like(small("coco", norm="instance"))).session()) is Session


def test_changed_symbols_are_found_by_level() -> None:
    before = np.zeros((16, 32), np.uint16)
    after = before.copy()
    after[5, 9] = 1
    after[8, 16] = 1
    sizes = [(4, 8), (8, 16), (16, 32)]
    assert changed_symbols(before, after, sizes) == [
        Rectangle(2, 4, 3, 5), Rectangle(4, 8, 5, 9), Rectangle(5, 9, 9, 17)
    ]  # fmt: skip
    assert changed_symbols(before, before, sizes) == [EMPTY] * 3
