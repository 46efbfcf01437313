"""Rounding with error diffusion beats rounding to the nearest value, on inputs that are similar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layouts import from_storage, to_storage
from kernels.ops.codebook import codebook_int8_numpy, codebook_numpy
from kernels.ops.embed import as_bytes, embed_numpy
from serving.engines.cpu.int8_rounding import LARGEST, round_codebook, round_weights
from serving.engines.cpu.rounding import drawn_patches, round_taps
from spade_core.codebook.fold import fold
from spade_core.config import GeneratorConfig, preset
from spade_core.models.seeded import seeded_generator


def config(**change: object) -> GeneratorConfig:
    return replace(preset("coco"), label_nc=6, height=64, width=64, nf=4, **change)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 9, 25]))
def test_taps_are_exact_in_bf16_and_their_sum_is_kept(seed: int, taps: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((3, 5, taps)).astype(np.float32)
    rounded = round_taps(weight)
    np.testing.assert_array_equal(from_storage(to_storage(rounded, "bf16")), rounded)
    # The error of the sum is the rounding error of the last tap, plus float32's own rounding.
    last = np.abs(weight).max() * 2.0**-7
    assert np.abs(rounded.sum(-1) - weight.sum(-1)).max() < last


def test_taps_go_to_and_fro() -> None:
    """The sum of any row of taps is off by two rounding errors at most; rounding to the nearest allows three."""
    weight = np.random.default_rng(0).uniform(1, 2, (2000, 9)).astype(np.float32)
    error = (round_taps(weight) - weight).reshape(-1, 3, 3)
    assert np.abs(error.sum(axis=2)).max() <= 2 * 2.0**-8
    assert np.abs(from_storage(to_storage(weight, "bf16")) - weight).reshape(-1, 3, 3).sum(2).max() > 2 * 2.0**-8


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 80), st.integers(64, 160))  # columns: enough for a mean
def test_weights_in_int8(seed: int, rows: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    inputs = random.uniform(0, 1, (200, rows)).astype(np.float32)  # similar: all above zero
    moment = inputs.T.astype(np.float64) @ inputs / len(inputs)
    before = weight.copy(), moment.copy()
    rounded, scale = round_weights(weight, moment)
    np.testing.assert_array_equal(weight, before[0])
    np.testing.assert_array_equal(moment, before[1])
    assert np.abs(rounded).max() <= LARGEST
    nearest = (weight / scale).round() * scale
    off = np.square(inputs @ (rounded * scale - weight)).mean()
    by_nearest = np.square(inputs @ (nearest - weight)).mean()
    assert off <= 1.1 * by_nearest + 1e-12
    if rows > 40:
        assert off < 0.5 * by_nearest


@pytest.mark.parametrize("spade_kernel", [1, 3])
@pytest.mark.parametrize("instance_edges", [False, True])
def test_drawn_patches_are_whole_and_the_same_every_time(spade_kernel: int, instance_edges: bool) -> None:
    of = config(spade_kernel=spade_kernel, instance_edges=instance_edges)
    patches3, patches5 = drawn_patches(of)
    for one, other in zip((patches3, patches5), drawn_patches(of), strict=True):
        np.testing.assert_array_equal(one, other)
    taps = spade_kernel**2
    assert (patches3.shape[1], patches5.shape[1]) == (taps, taps)
    assert len(np.unique(patches3)) == of.symbols + (spade_kernel > 1)  # every symbol, and outside
    assert patches5.max() == len(patches3) - (spade_kernel == 1)


def test_a_codebook_in_int8() -> None:
    of = config()
    norm = seeded_generator(of).up_3.norm_0
    with torch.no_grad():
        folded = fold(norm, of)
    parts = (folded.table, folded.shared_bias, folded.weight, folded.bias)
    table, *others = (part.detach().numpy() for part in parts)
    arrays = table.reshape(9, of.symbols + 1, -1), *others
    patches3, patches5 = drawn_patches(of)
    rounded = round_codebook(*arrays, (patches3, patches5))
    actv = as_bytes(embed_numpy(rounded.table, rounded.shared_bias, patches3, relu=True, zero_row=True))
    got = codebook_int8_numpy(
        actv, patches5, rounded.weight, rounded.scale, arrays[3], patches3, rounded.interior
    )  # fmt: skip
    exact = embed_numpy(arrays[0], arrays[1], patches3, relu=True, zero_row=True)
    expected = codebook_numpy(exact, patches5, arrays[2], arrays[3])
    inside = (patches5 == patches5[:, :1]).all(1)
    inside &= np.append((patches3 == patches3[:, :1]).all(1), False)[patches5[:, 0]]
    assert 0 < inside.sum() < len(inside) / 2
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-5)
    off = np.sqrt(np.mean((got - expected)[~inside] ** 2) / np.var(expected[~inside]))
    assert 1e-4 < off < 0.01
