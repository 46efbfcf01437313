"""The cpu engine's sessions: random edits have the bits of drawing anew, within the memory that they may take."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from edit_sequences import Case, cases, check, edited, new_map, small
from generators import trained_like

from kernels.isa import supported_isas
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Session, check_inputs
from serving.engines.cpu import program as cpu_program
from serving.engines.cpu.engine import CpuEngine
from serving.engines.cpu.kept_program import KeptProgram
from serving.engines.cpu.pack import walk
from serving.engines.kept import KeptSession
from serving.engines.reach import (
    changed_patches,
    changed_start,
    changed_symbols,
    conv_macs,
    reached_maps,
    whole_maps,
)
from serving.engines.timings import Timings
from spade_core.config import PRESETS, GeneratorConfig, level_sizes
from spade_core.models.style import style_from_seed

pytestmark = pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")

CASES = list(cases(1))


@dataclass(frozen=True)
class Place:
    """Where a block stands."""

    level: int
    shift: int


def engine_sizes(config: GeneratorConfig) -> list[tuple[int, int]]:
    return level_sizes(config.height, config.width, config.upsamplings)


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


@pytest.mark.parametrize("name", list(PRESETS))
def test_no_edit_costs_more_than_the_whole_map_by_count(name: str) -> None:
    """What reaches nothing costs nothing, and no step of any edit computes more pixels than its map has."""
    config = PRESETS[name]
    step, rng = 1 << config.upsamplings, np.random.default_rng(0)
    others = [] if config.style else [(3 * step, 5 * step)]  # a style fixes the size
    for height, width in ((config.height, config.width), *others):
        of = new_map(rng, config, height, width)
        blocks = [Place(level, shift) for _, level, shift in walk(config)]
        sizes = level_sizes(height, width, config.upsamplings)
        whole = whole_maps(blocks, sizes)
        for _ in range(40):
            after = edited(rng, config, of)
            before, symbols = (check_inputs(*maps, config).symbols[0] for maps in (of, after))
            changed = changed_symbols(before, symbols, sizes)
            start = changed_start(changed[0], False, sizes[0], config)
            reached = reached_maps(start, changed_patches(changed, sizes, config), blocks, sizes)
            assert all(area | of_map == of_map for area, of_map in zip(reached, whole, strict=True))
            assert conv_macs(reached, config) <= conv_macs(whole, config)
            if not any(area.area for area in changed):
                assert conv_macs(reached, config) == 0
            of = after
        assert conv_macs(whole, config) > 0


def test_an_edit_runs_the_counted_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's steps get the counted rectangles, and the pixels around them that the next conv reads."""
    config = small("ade20k", height=128, width=128)
    engine, seen = CpuEngine(trained_like(config)), list[Sequence[Rectangle]]()
    session = engine.session()
    of = new_map(np.random.default_rng(0), config, 128, 128)
    session.draw(check_inputs(*of, config))
    limit = KeptProgram.limit

    def noted(program: KeptProgram, reached: Sequence[Rectangle]) -> None:
        seen.append(reached)
        limit(program, reached)
        for which, border, size, words in program._limits:
            edges = tuple(int(program._words[word]) for word in words[:4])
            assert edges == tuple(reached[which].grown(border, *size))

    monkeypatch.setattr(KeptProgram, "limit", noted)
    labels = of[0].copy()
    labels[0, 65, 67] = (labels[0, 65, 67] + 1) % 9
    session.draw(check_inputs(labels, None, None, config))
    (reached,) = seen
    assert conv_macs(reached, config) < conv_macs(whole_maps(engine._packed.blocks, engine_sizes(config)), config) / 50


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
    assert isinstance(kept, KeptSession)
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


def test_instance_norm_has_plain_sessions_that_keep_the_patch_store() -> None:
    config = small("coco", norm="instance", height=64, width=64)
    engine = CpuEngine(trained_like(config))
    session = engine.session()
    assert type(session) is Session
    of = new_map(np.random.default_rng(0), config, 64, 64)
    session.draw(check_inputs(*of, config))
    labels = of[0].copy()
    labels[0, 33, 35] = (labels[0, 33, 35] + 1) % 9  # a pixel that only the last level samples
    inputs = check_inputs(labels, of[1], None, config)
    image, _ = session.draw(inputs)
    new = [len(level.patches5) for level in engine._codebooks.store.new_patches()]
    assert sum(new[:-1]) == 0
    assert 0 < new[-1] <= 49, "an edit of one pixel has new patches around it, with the edges of its object"
    assert np.array_equal(image, CpuEngine(trained_like(config), cache_bytes=0).run(inputs)[0])


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
