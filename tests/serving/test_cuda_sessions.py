"""Sessions of the GPU engine on emulated kernels: the bits of drawing anew, bounded memory, the counted cost."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_engines import EmulatedEngine, by_place, by_size, in_one_order
from edit_sequences import check_engines, new_map, small
from generators import trained_like
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.cuda.host.library import Library
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Inputs, Session, check_inputs
from serving.engines.cuda import program as cuda_program
from serving.engines.cuda import session as cuda_session
from serving.engines.cuda.session import CudaSessions
from serving.engines.cuda.windows import STEP, ConvShape, Windows, trial_values, window_around
from serving.engines.reference import Precision, TorchEngine
from serving.engines.timings import Timings
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.models.style import style_from_seed
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

Conv = Callable[[Tensor, Tensor], Tensor]
CPU = torch.device("cpu")


def use_conv(monkeypatch: pytest.MonkeyPatch, conv: Conv) -> None:
    for module in (cuda_program, cuda_session):
        monkeypatch.setattr(module, "conv", conv)


def wide(name: str = "ade20k", **change: object) -> GeneratorConfig:
    """A preset of few channels, on maps so large that strokes leave most of them alone."""
    return small(name, **({"nf": 2, "height": 128, "width": 128} | change))


def inputs_of(config: GeneratorConfig, seed: int = 0) -> Inputs:
    return check_inputs(*new_map(np.random.default_rng(seed), config, config.height, config.width), config)


def stroke(of: Inputs, area: Rectangle, config: GeneratorConfig) -> Inputs:
    """The map with another label in an area."""
    labels = of.labels.copy()
    labels[0][area.slices] = (labels[0][area.slices] + 1) % config.label_nc
    return check_inputs(labels, of.instances, of.style, config)


def sessions_of(engine: EmulatedEngine) -> CudaSessions:
    found = engine.generator._sessions
    assert found is not None
    return found


def drawn_once(config: GeneratorConfig, library: Library) -> tuple[Session, Inputs, CudaSessions]:
    """A session that has drawn a map, the map, and what the sessions of its engine share."""
    engine = EmulatedEngine(config, library)
    session, of = engine.session(), inputs_of(config)
    session.draw(of)
    return session, of, sessions_of(engine)


# ---- The bits ----


@pytest.mark.parametrize(
    ("config", "seed"),
    [
        (small("coco", nf=2, height=32, width=64), 1),  # maps of noise among them; the other seeds' are of blocks
        (small("demo", nf=2, height=32, width=64), 8),
        (small("ade20k", nf=2, height=96, width=160, spade_kernel=1), 8),
        (small("coco", nf=2, upsampling="most", height=128, width=128), 8),
        (small("coco", nf=2, norm="instance"), 7),
    ],
    ids=["coco", "demo", "1x1 convs", "most", "instance norm"],
)
def test_random_edits_have_the_bits_of_drawing_anew(config: GeneratorConfig, seed: int, emulated: Library) -> None:
    """PyTorch's convs choose their algorithm by size: windows that have other bits must be found.

    In float32 only: products of half precision take the emulator a minute an edit.
    """
    ours, anew = (EmulatedEngine(config, emulated) for _ in range(2))
    check_engines(ours, anew, config.preset, seed, 2)


@pytest.mark.parametrize("conv", [in_one_order, by_size, by_place])
def test_edits_have_the_bits_of_drawing_anew_whatever_the_order_of_the_convs(
    conv: Conv, emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_conv(monkeypatch, conv)
    config = wide(width=160)
    ours, anew = (EmulatedEngine(config, emulated) for _ in range(2))
    session, of = ours.session(), inputs_of(config)
    session.draw(of)
    for area in (Rectangle(57, 59, 61, 63), Rectangle(1, 0, 2, 3), Rectangle(127, 101, 128, 160)):
        of = stroke(of, area, config)
        image, changed = session.draw(of)
        assert np.array_equal(image, anew.run(of)[0])
        assert 0 < changed.area < image[..., 0].size
    sessions = sessions_of(ours)
    assert sessions.parts == 3
    if conv is in_one_order:
        assert sessions.windows.refused == 0
    else:
        assert sessions.windows.refused > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("name", list(PRESETS))
def test_on_a_gpu_random_edits_have_the_bits_of_drawing_anew(
    name: str, precision: Precision, record_property: Callable[[str, object], None]
) -> None:
    """The promise that no machine without a GPU can check: cuDNN's convs, tensor cores, graphs. Counts go to JUnit.

    One engine draws both ways, since another may measure other algorithms as the fastest.
    """
    config = replace(PRESETS[name], height=512, width=512)
    ours = TorchEngine(trained_like(config), precision, device="cuda")
    assert ours._cuda is not None, "the library has no kernels"
    ours._cuda._new_map((512, 512))
    assert ours._cuda._sessions is not None
    ours._cuda._sessions.launch_macs = 0  # by rectangles wherever they save a multiply-add
    check_engines(ours, ours, f"{name}, {precision}", 1, 40)
    sessions = ours._cuda._sessions
    for count, value in {
        "parts": sessions.parts,
        "wholes": sessions.wholes,
        "refused": sessions.windows.refused,
    }.items():
        record_property(count, value)
    assert config.norm == "instance" or sessions.parts > 0


def test_restyling_and_other_maps_keep_the_bits(emulated: Library) -> None:
    config = wide("demo")
    ours, anew = (EmulatedEngine(config, emulated) for _ in range(2))
    first = inputs_of(config)
    session = ours.session()
    session.draw(first)
    timings = Timings()
    restyled = replace(first, style=style_from_seed(7)[None])
    image, changed = session.draw(restyled, timings)
    assert np.array_equal(image, anew.run(restyled)[0])
    assert changed == Rectangle.whole(128, 128)
    assert timings.redrawn_maps == 1
    assert session.draw(restyled)[1] == EMPTY


# ---- The cost ----


def test_an_edit_runs_rectangles_and_computes_new_patches_only(
    emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_conv(monkeypatch, in_one_order)
    config = wide()
    session, of, sessions = drawn_once(config, emulated)
    assert (sessions.parts, sessions.wholes) == (0, 1)
    pixels: list[int] = []

    def run(weight: Tensor, x: Tensor, _whole: bool) -> Tensor:
        pixels.append(x[0, 0].numel())
        return in_one_order(weight, x)

    monkeypatch.setattr(sessions.windows, "run", run)
    known = sessions.store.horizons([0] * 6)
    _, changed = session.draw(stroke(of, Rectangle(65, 67, 66, 68), config))  # only the last level samples this pixel
    assert changed == Rectangle(60, 62, 72, 74)
    assert (sessions.parts, sessions.wholes) == (1, 1)
    assert sessions.store.horizons([0] * 6)[:-1] == known[:-1], "no patch of another level is new"
    # The convs of the last block, after the trials of new windows: up to 12 px, one more on each side of convs of 3x3.
    assert pixels[-3:] == [16 * 24, 16 * 16, 16 * 24]


def test_a_drawing_never_costs_more_than_the_whole_map_by_count(
    emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rectangles and launches cost as much as the whole map, the whole map is drawn, as one graph."""
    use_conv(monkeypatch, in_one_order)
    config = wide()
    session, of, sessions = drawn_once(config, emulated)
    small_stroke = stroke(of, Rectangle(65, 67, 66, 68), config)
    sessions.launch_macs = 10**15
    image, changed = session.draw(small_stroke)
    assert (sessions.parts, sessions.wholes, changed) == (0, 2, Rectangle.whole(128, 128))
    assert np.array_equal(image, EmulatedEngine(config, emulated).run(small_stroke)[0])
    sessions.launch_macs = 0
    session.draw(stroke(of, Rectangle(0, 0, 128, 128), config))
    assert (sessions.parts, sessions.wholes) == (0, 3)


def test_with_instance_norm_an_edit_keeps_the_patch_store(emulated: Library) -> None:
    config = wide("coco", norm="instance", height=64, width=64)
    session, of, sessions = drawn_once(config, emulated)
    first = [len(new.patches5) for new in sessions.store.new_patches()]
    edited = stroke(of, Rectangle(33, 35, 34, 36), config)
    image, _ = session.draw(edited)
    assert np.array_equal(image, EmulatedEngine(config, emulated).run(edited)[0])
    new = [len(new.patches5) for new in sessions.store.new_patches()]
    assert (sessions.parts, sessions.wholes) == (0, 2)
    assert sum(new[:-1]) == 0
    assert 0 < new[-1] <= 25
    assert sum(first) > 25


# ---- Memory ----


def test_the_session_used_longest_ago_loses_its_maps(emulated: Library) -> None:
    config = small("ade20k", nf=2, height=64, width=64)
    of = inputs_of(config)
    probe = EmulatedEngine(config, emulated)
    probe_session = probe.session()
    probe_session.draw(of)
    size = probe.kept.bytes
    engine = EmulatedEngine(config, emulated, session_bytes=int(2.5 * size))
    sessions, timings = [engine.session() for _ in range(3)], Timings()
    for session in sessions:
        session.draw(of, timings)
        assert 0 < engine.kept.bytes <= 2.5 * size
    assert timings.session_bytes == 2 * size
    assert [session in engine.kept._of for session in sessions] == [False, True, True]
    assert np.array_equal(sessions[0].draw(of)[0], probe_session.image)
    del session, sessions
    gc.collect()
    assert engine.kept.bytes == 0, "a session that nobody holds keeps no maps"


def test_a_session_or_a_store_without_room_draws_anew(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("ade20k", nf=2, height=64, width=64)
    of = inputs_of(config)
    expected = EmulatedEngine(config, emulated).run(of)[0]
    no_room = EmulatedEngine(config, emulated, session_bytes=1000)
    assert np.array_equal(no_room.session().draw(of)[0], expected)
    assert no_room.kept.bytes == 0
    monkeypatch.setattr(cuda_session, "STORE_BYTES", 1000)
    no_store = EmulatedEngine(config, emulated)
    session = no_store.session()
    for _ in range(2):
        assert np.array_equal(session.draw(of)[0], expected)
    assert no_store.kept.bytes == 0


def test_a_store_that_forgets_keeps_the_bits(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_session, "STORE_BYTES", 200_000)
    config = small("ade20k", nf=2, height=64, width=64)
    ours, anew = (EmulatedEngine(config, emulated) for _ in range(2))
    check_engines(ours, anew, "a small store", 3, 4)
    sessions = sessions_of(ours)
    assert sum(sessions.store.horizons([0] * 6)) > 0, "the store has forgotten patches"


# ---- Windows ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("channels", "kernel"), [(2, 3), (16, 1), (16, 3)])
def test_a_trial_tells_orders_of_summation_apart(channels: int, kernel: int, dtype: torch.dtype) -> None:
    shape = ConvShape(channels, 4, kernel, (64, 64))
    area = Rectangle(20, 30, 29, 33)
    convs: list[tuple[Conv, bool]] = [(in_one_order, True), (by_place, False)]
    for conv, exact in convs:
        windows = Windows(lambda weight, x, _, conv=conv: conv(weight, x), dtype, CPU)  # type: ignore[misc]
        window = windows.of(shape, area)
        assert (window != Rectangle.whole(64, 64)) == exact
        assert windows.refused == (not exact)
        assert windows.of(shape, area) == window
    x, weight = trial_values(shape, dtype, CPU)
    forth, back = in_one_order(weight, x), in_one_order(weight.flip(1), x.flip(1))
    assert (forth != back).float().mean() > 0.5
    assert torch.isfinite(forth).all()


@given(st.data())
@settings(max_examples=200)
def test_windows_hold_what_a_conv_reads(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    top, left = (data.draw(st.integers(0, most - 1)) for most in size)
    bottom, right = (data.draw(st.integers(first + 1, most)) for first, most in zip((top, left), size, strict=True))
    area, border = Rectangle(top, left, bottom, right), data.draw(st.integers(0, 1))
    window = window_around(area, border, size)
    assert window | area.grown(border, *size) == window
    assert window | Rectangle.whole(*size) == Rectangle.whole(*size)
    for first, last, most in ((window.top, window.bottom, size[0]), (window.left, window.right, size[1])):
        assert first % STEP == 0 or last == most
