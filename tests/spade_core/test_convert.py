"""Published weights become a checkpoint that computes the same image, or an error that names their faults."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.config import PRESETS, GeneratorConfig
from spade_core.files.checkpoints import CheckpointError, load
from spade_core.files.convert import convert
from spade_core.files.found_config import FoundConfig, Known
from spade_core.files.pickled import ConvertError
from spade_core.maps.colours import class_palette
from spade_core.maps.label_maps import prepare
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.one_hot import one_hot
from spade_core.models.spade import ResidualBlock

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

SMALL = {name: replace(PRESETS[name], nf=2) for name in ("coco", "ade20k", "cityscapes")}
COCO = SMALL["coco"]


# A published file, made from the list of keys in the reference facts. The modules under test have no part in it.


def published_shapes(
    semantic_nc: int, nf: int, *, most: bool = False, style: int = 0, norm: str = "batch", kernel: int = 3
) -> tuple[Shapes, list[str]]:
    """The shapes of all keys without spectral norm, and the convs with spectral norm.

    `style` is the number of pixels of the start map.
    """
    widths = [16, 16, 16, 16, 8, 4, 2, 1, 0.5]
    names = ["head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3"] + ["up_4"] * most
    shapes: Shapes = {"fc.weight": (16 * nf * style, 256) if style else (16 * nf, semantic_nc, 3, 3)}
    shapes["fc.bias"] = shapes["fc.weight"][:1]
    convs = []
    for i, name in enumerate(names):
        fin, fout = int(widths[i] * nf), int(widths[i + 1] * nf)
        fmid = min(fin, fout)
        parts = [("0", fin, fmid, 3, fin), ("1", fmid, fout, 3, fmid)] + [("s", fin, fout, 1, fin)] * (fin != fout)
        for suffix, before, after, size, normed in parts:
            conv, norm_ = f"{name}.conv_{suffix}", f"{name}.norm_{suffix}"
            convs.append(conv)
            shapes[f"{conv}.weight"] = (after, before, size, size)
            if suffix != "s":
                shapes[f"{conv}.bias"] = (after,)
            shapes[f"{norm_}.mlp_shared.0.weight"] = (128, semantic_nc, kernel, kernel)
            shapes[f"{norm_}.mlp_shared.0.bias"] = (128,)
            for mlp in ("mlp_gamma", "mlp_beta"):
                shapes[f"{norm_}.{mlp}.weight"] = (normed, 128, kernel, kernel)
                shapes[f"{norm_}.{mlp}.bias"] = (normed,)
            if norm == "batch":
                shapes[f"{norm_}.param_free_norm.running_mean"] = (normed,)
                shapes[f"{norm_}.param_free_norm.running_var"] = (normed,)
                shapes[f"{norm_}.param_free_norm.num_batches_tracked"] = ()
    last = int(widths[len(names)] * nf)
    shapes["conv_img.weight"], shapes["conv_img.bias"] = (3, last, 3, 3), (3,)
    return shapes, convs


def published_encoder_shapes(nf: int) -> tuple[Shapes, list[str]]:
    widths = [3, nf, 2 * nf, 4 * nf, 8 * nf, 8 * nf, 8 * nf]
    shapes: Shapes = {f"layer{i + 1}.0.weight": (widths[i + 1], widths[i], 3, 3) for i in range(6)}
    for head in ("fc_mu", "fc_var"):
        shapes |= {f"{head}.weight": (256, 8 * nf * 16), f"{head}.bias": (256,)}
    return shapes, [f"layer{i + 1}.0" for i in range(6)]


def published(shapes: Shapes, convs: list[str], seed: int = 0, *, rounds: int | None = 5) -> State:
    """Random weights; `weight_orig`, `weight_u`, `weight_v` for the convs, after `rounds` power iterations in NumPy."""
    rng = np.random.default_rng(seed)
    state: State = {}
    for key, shape in shapes.items():
        stem, _, suffix = key.rpartition(".")
        if suffix == "num_batches_tracked":
            state[key] = torch.tensor(1234)
            continue
        values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:], initial=1)))
        if suffix == "running_var":
            values = np.abs(values) + np.float32(0.5)
        if stem not in convs or suffix != "weight":
            state[key] = torch.from_numpy(values)
            continue
        u, v = singular_vectors(values.reshape(shape[0], -1), rng, rounds)
        state |= {f"{key}_orig": torch.from_numpy(values)}
        state |= {f"{key}_u": torch.from_numpy(u), f"{key}_v": torch.from_numpy(v)}
    return state


Vector = npt.NDArray[np.float32]


def singular_vectors(matrix: Vector, rng: np.random.Generator, rounds: int | None) -> tuple[Vector, Vector]:
    """First left and right singular vectors: exact for None, else after that many power iterations."""
    if rounds is None:
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        return left[:, 0], right[0]
    u = rng.standard_normal(len(matrix), dtype=np.float32)
    v = np.zeros(0, np.float32)
    for _ in range(rounds):
        v = unit(matrix.T @ u)
        u = unit(matrix @ v)
    return u, v


def unit(vector: Vector) -> Vector:
    return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))


def exactly(config: GeneratorConfig) -> Known:
    return Known(fields=config.to_dict())


def coco_file(path: Path, **options: Any) -> Path:
    torch.save(published(*published_shapes(184, 2), **options), path)
    return path


def with_spectral_norm(module: nn.Module) -> nn.Module:
    """The published modules: PyTorch's own spectral norm on the convs that have it."""
    for block in list(module.modules()):
        if isinstance(block, ResidualBlock):
            for name in ("conv_0", "conv_1", "conv_s"):
                if getattr(block, name) is not None:
                    nn.utils.spectral_norm(getattr(block, name))
        elif isinstance(block, nn.Sequential) and isinstance(module, StyleEncoder):
            nn.utils.spectral_norm(block[0])
    return module.eval()


def image_of(generator: Generator, start_size: int) -> Tensor:
    """The image before tanh, from a small start map of `start_size` squared pixels, for a config of any size."""
    config, rng = generator.config, np.random.default_rng(7)
    size = start_size * 2**config.upsamplings
    symbols = torch.from_numpy(rng.integers(0, config.symbols, (1, size // 8, size // 8)).repeat(8, 1).repeat(8, 2))
    segmap = one_hot(symbols, config, torch.float32)

    def segmap_at(height: int) -> Tensor:
        return F.interpolate(segmap, size=(height, height), mode="nearest")

    with torch.inference_mode():
        if config.style:
            style = torch.from_numpy(rng.standard_normal((1, 256), dtype=np.float32))
            start = generator.style_start(style)[..., :start_size, :start_size]
        else:
            start = generator.fc(segmap_at(start_size))
        return generator.eval()(start, lambda spade, x: spade(x, segmap_at(x.shape[2])))  # type: ignore[no-any-return]


def assert_close(found: Tensor, expected: Tensor) -> None:
    # The two float32 networks sum equal weights in the same order, and differ by the rounding of sigma.
    error = float((found - expected).abs().max() / expected.abs().max())
    assert not error > 1e-5
    assert float(expected.std()) > 1e-3


VARIANTS: dict[str, tuple[dict[str, Any], GeneratorConfig]] = {
    "coco": ({"semantic_nc": 184}, SMALL["coco"]),
    "ade20k": ({"semantic_nc": 151}, SMALL["ade20k"]),
    "cityscapes": ({"semantic_nc": 36}, SMALL["cityscapes"]),
    "most": ({"semantic_nc": 184, "most": True}, replace(COCO, upsampling="most")),
    "style": ({"semantic_nc": 184, "style": 64}, replace(COCO, style=True)),
    "instance 1x1": (
        {"semantic_nc": 151, "norm": "", "kernel": 1},
        replace(SMALL["ade20k"], norm="instance", spade_kernel=1),
    ),
    "5x5": ({"semantic_nc": 151, "kernel": 5}, replace(SMALL["ade20k"], spade_kernel=5)),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_published_file_computes_the_same_after_conversion(tmp_path: Path, kind: str) -> None:
    options, config = VARIANTS[kind]
    shapes, convs = published_shapes(nf=2, **options)
    state = published(shapes, convs)
    torch.save(state, tmp_path / "latest_net_G.pth")
    report = convert(tmp_path / "latest_net_G.pth", None, tmp_path / "out.safetensors")
    assert report.config == config
    assert set(report.folded) == {f"{conv}.weight" for conv in convs}
    assert {k for k in report.dropped if not k.endswith("num_batches_tracked")} == set()

    reference = with_spectral_norm(Generator(config))
    reference.load_state_dict(state)
    assert isinstance(reference, Generator)
    checkpoint = load(tmp_path / "out.safetensors")
    assert checkpoint.config == config
    size = 2 if config.norm == "instance" else 1  # instance norm of one pixel is zero
    assert_close(image_of(checkpoint.generator, size), image_of(reference, size))


def test_the_encoder_is_converted_too(tmp_path: Path) -> None:
    config = replace(COCO, style=True)
    torch.save(published(*published_shapes(184, 2, style=64)), tmp_path / "G.pth")
    state = published(*published_encoder_shapes(4))
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "E.pth")
    report = convert(tmp_path / "G.pth", tmp_path / "E.pth", tmp_path / "out")
    assert report.encoder_parameters == sum(np.prod(s) for s in published_encoder_shapes(4)[0].values())
    checkpoint = load(tmp_path / "out")
    assert checkpoint.config == config
    assert checkpoint.metadata["trained"] == "true"
    assert checkpoint.metadata["source.encoder"] == "E.pth"
    assert len(checkpoint.metadata["source.generator.sha256"]) == 64
    reference = with_spectral_norm(StyleEncoder(4))
    reference.load_state_dict(state)
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert checkpoint.encoder is not None
    with torch.inference_mode():
        for found, expected in zip(checkpoint.encoder(image), reference(image), strict=True):
            assert_close(found, expected)


# Variants of the file itself


def without_v(state: State) -> State:
    """A file as PyTorch before 1.1 wrote it: without v, with the last training step's `weight` beside `weight_orig`."""
    stale = {k.removesuffix("_orig"): torch.full_like(v, 9.0) for k, v in state.items() if k.endswith("_orig")}
    return {k: v for k, v in state.items() if not k.endswith("weight_v")} | stale


def test_files_of_all_ages_give_the_same_weights(tmp_path: Path) -> None:
    # Power iteration has converged, so that u determines v.
    state = published(*published_shapes(184, 2), rounds=None)
    torch.save(state, tmp_path / "new.pth")
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "parallel.pth")
    torch.save(without_v(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = None
    for name in ("new", "parallel", "old"):
        convert(tmp_path / f"{name}.pth", None, tmp_path / "out")
        found = load(tmp_path / "out").generator.state_dict()
        expected = expected or found
        for key, tensor in expected.items():
            assert torch.allclose(found[key], tensor, rtol=1e-5, atol=0), (name, key)


PARAMETRIZED = {"_orig": "original", "_u": "0._u", "_v": "0._v"}


def parametrized(state: State) -> State:
    """The keys of torch.nn.utils.parametrizations.spectral_norm."""
    renamed = {}
    for key, tensor in state.items():
        stem, marker, end = key.rpartition(".weight")
        renamed[f"{stem}.parametrizations.weight.{PARAMETRIZED[end]}" if marker and end else key] = tensor
    return renamed


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_keys_of_compiled_parallel_and_parametrized_networks_are_read(tmp_path: Path, prefix: str) -> None:
    state = published(*published_shapes(151, 2))
    torch.save(state, tmp_path / "plain.pth")
    wrapped = {prefix + key: tensor for key, tensor in parametrized(state).items()}
    assert "head_0.conv_0.parametrizations.weight.original" in parametrized(state)
    torch.save(wrapped, tmp_path / "wrapped.pth")
    plain = convert(tmp_path / "plain.pth", None, tmp_path / "plain")
    other = convert(tmp_path / "wrapped.pth", None, tmp_path / "wrapped")
    assert other.folded == plain.folded
    expected = load(tmp_path / "plain").generator.state_dict()
    for key, tensor in load(tmp_path / "wrapped").generator.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_pytorchs_own_parametrizations_give_their_weights(tmp_path: Path) -> None:
    generator = Generator(SMALL["ade20k"]).eval()
    torch.nn.utils.parametrizations.spectral_norm(generator.head_0.conv_0).eval()
    torch.nn.utils.parametrizations.weight_norm(generator.up_0.conv_0)
    torch.nn.utils.parametrizations.weight_norm(generator.up_1.conv_0, dim=None)
    generator.G_middle_0 = torch.compile(generator.G_middle_0, backend="eager")  # type: ignore[assignment]
    with torch.no_grad():
        for name in ("up_0", "up_1"):
            getattr(generator, name).conv_0.parametrizations.weight.original0.mul_(3)
    state = generator.state_dict()
    assert {"up_0.conv_0.parametrizations.weight.original1", "G_middle_0._orig_mod.conv_0.weight"} <= set(state)
    torch.save(state, tmp_path / "G.pth")
    report = convert(tmp_path / "G.pth", None, tmp_path / "out")
    assert set(report.folded) == {"head_0.conv_0.weight", "up_0.conv_0.weight", "up_1.conv_0.weight"}
    loaded = load(tmp_path / "out").generator
    for name in ("head_0", "G_middle_0", "up_0", "up_1"):
        expected = getattr(generator, name).conv_0.weight
        assert torch.allclose(getattr(loaded, name).conv_0.weight, expected, rtol=1e-5, atol=0), name


def test_two_keys_that_become_one_are_refused(tmp_path: Path) -> None:
    torch.save({"module.fc.bias": torch.ones(1), "fc.bias": torch.ones(1)}, tmp_path / "G.pth")
    with pytest.raises(ConvertError, match=r"got 'module\.fc\.bias' and 'fc\.bias' for 'fc\.bias'"):
        convert(tmp_path / "G.pth", None, tmp_path / "out")


def test_a_stale_weight_is_reported_as_dropped(tmp_path: Path) -> None:
    torch.save(without_v(published(*published_shapes(184, 2))), tmp_path / "G.pth")
    report = convert(tmp_path / "G.pth", None, tmp_path / "out")
    assert "head_0.conv_0.weight" in report.dropped
    assert "head_0.norm_0.param_free_norm.num_batches_tracked" in report.dropped


def test_weights_without_spectral_norm_stay_as_they_are(tmp_path: Path) -> None:
    shapes, _ = published_shapes(184, 2)
    state = published(shapes, [])
    torch.save(state, tmp_path / "G.pth")
    assert convert(tmp_path / "G.pth", None, tmp_path / "out").folded == ()
    assert torch.equal(load(tmp_path / "out").generator.state_dict()["up_0.conv_s.weight"], state["up_0.conv_s.weight"])


def test_a_given_config_is_followed_and_checked(tmp_path: Path) -> None:
    config = replace(PRESETS["demo"], nf=2, label_nc=20, norm="instance", style=False)
    torch.save(published(*published_shapes(20, 2, norm="")), tmp_path / "G.pth")
    assert convert(tmp_path / "G.pth", None, tmp_path / "out", known=exactly(config)).config == config
    with pytest.raises(
        ConvertError, match=r"expected one of .* 184 \(coco\), 151 \(ade20k\), 36 \(cityscapes\), but got 20"
    ):
        convert(tmp_path / "G.pth", None, tmp_path / "out")
    with pytest.raises(
        ConvertError,
        match=r"36 faults: 36 missing: head_0\.norm_0\.param_free_norm\.running_mean, head_0\.norm_0\..*running_var, "
        r"head_0\.norm_1\.param_free_norm\.running_mean, \.\.; give the config",
    ):
        convert(tmp_path / "G.pth", None, tmp_path / "out", known=exactly(replace(config, norm="batch")))
    with pytest.raises(
        ConvertError,
        match=r"19 faults: 19 of another shape: fc\.weight is \[32, 20, 3, 3\], not \[32, 21, 3, 3\], "
        r"head_0\.norm_0\.mlp_shared",
    ):
        convert(tmp_path / "G.pth", None, tmp_path / "out", known=exactly(replace(config, label_nc=21)))


def test_a_style_generator_of_another_start_size_needs_a_config(tmp_path: Path) -> None:
    torch.save(published(*published_shapes(184, 2, style=32)), tmp_path / "G.pth")
    with pytest.raises(ConvertError, match=r"fc\.weight is \[1024, 256\], not \[2048, 256\]; .*give the config"):
        convert(tmp_path / "G.pth", None, tmp_path / "out")
    config = replace(COCO, style=True, width=128)
    assert convert(tmp_path / "G.pth", None, tmp_path / "out", known=exactly(config)).config == config


# What no shape tells


def found(tmp_path: Path, channels: int, base: str | None = None, *, style: int = 0, **fields: Any) -> FoundConfig:
    """The configuration of a file with so many input channels; `style` is the number of pixels of the start map."""
    torch.save(published(published_shapes(channels, 2, style=style)[0], []), tmp_path / "G.pth")
    return convert(tmp_path / "G.pth", None, tmp_path / "out", known=Known(base, fields)).found


def test_guesses_are_told_from_facts_and_the_way_out_is_named(tmp_path: Path) -> None:
    torch.save(published(*published_shapes(36, 2)), tmp_path / "G.pth")
    report = convert(tmp_path / "G.pth", None, tmp_path / "out")
    guessed = {"preset", "label_nc", "dont_care", "instance_edges", "height", "width", "upsampling"}
    assert {name for name, fact in report.found.facts.items() if fact.source == "guess"} == guessed
    assert {name for name, fact in report.found.facts.items() if fact.source == "file"} == {
        "nf", "norm", "spade_kernel", "style"
    }  # fmt: skip
    text = str(report)
    assert re.search(r"label_nc +35 +guess: as 'cityscapes', which has 36 input channels too\n", text)
    assert re.search(r"instance_edges +true +guess: ", text)
    assert re.search(r"nf +2 +file: ", text)
    assert "No shape tells preset, label_nc, dont_care, instance_edges, height, width, upsampling. " in text
    assert "override with --set FIELD=VALUE, --config FILE or --preset NAME." in text
    assert "--set label_nc=36" in text


def test_a_preset_that_the_caller_names_is_no_guess(tmp_path: Path) -> None:
    result = found(tmp_path, 36, "cityscapes")
    assert result.config == SMALL["cityscapes"]  # nf is the file's
    assert {fact.source for fact in result.facts.values()} == {"preset", "file"}
    assert "No shape tells" not in str(result)


def test_own_classes_take_the_place_of_the_guessed_preset(tmp_path: Path) -> None:
    result = found(tmp_path, 36, label_nc=36, height=128, width=64)
    own = replace(SMALL["ade20k"], preset="custom", label_nc=36, height=128, width=64)
    assert result.config == own
    assert load(tmp_path / "out").config == own
    assert result.facts["label_nc"].source == "given"
    assert result.facts["instance_edges"].source == "file"  # 36 channels, less 36 classes
    assert result.facts["upsampling"].source == "guess"
    assert found(tmp_path, 36, "cityscapes", label_nc=36).config.preset == "custom"
    assert found(tmp_path, 36, label_nc=36, preset="streets").config.preset == "streets"


SPLITS: list[tuple[dict[str, Any], tuple[int, bool, bool]]] = [
    ({"label_nc": 20}, (20, False, False)),
    ({"label_nc": 18}, (18, True, True)),
    ({"label_nc": 19, "dont_care": True}, (19, True, False)),
    ({"label_nc": 19, "dont_care": False}, (19, False, True)),
    ({"label_nc": 19, "instance_edges": True}, (19, False, True)),
    ({"instance_edges": True}, (19, False, True)),
    ({"dont_care": True, "instance_edges": True}, (18, True, True)),
]


@pytest.mark.parametrize(("fields", "split"), SPLITS)
def test_the_classes_add_up_to_the_input_channels(
    tmp_path: Path, fields: dict[str, Any], split: tuple[int, bool, bool]
) -> None:
    config = found(tmp_path, 20, **fields).config
    assert (config.label_nc, config.dont_care, config.instance_edges) == split


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"label_nc": 19}, "to add up to the 20 input channels .* got label_nc 19; give all three by --set"),
        ({"label_nc": 12, "dont_care": True}, "20 input channels .* got label_nc 12, dont_care true"),
        ({"height": 128}, r"but got 20 in .*\(--set label_nc=20, or --config FILE\)"),
        ({"labels": 20}, "a field out of preset, label_nc, .* but got 'labels'"),
        ({"label_nc": "20"}, "label_nc to be of type int but got '20'"),
        ({"label_nc": 20, "preset": [1]}, r"preset to be of type str but got \[1\]"),
        ({"label_nc": 20, "upsampling": "most"}, "missing: up_4"),
        ({"label_nc": 20, "height": 100}, "variant of 'custom' but got .*multiples of 32.*override with --set"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        found(tmp_path, 20, **fields)
    assert not (tmp_path / "out").exists()


def test_every_uint8_value_can_be_a_class(tmp_path: Path) -> None:
    result = found(tmp_path, 256, label_nc=256)
    assert result.config.symbols == 256
    labels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(16, 1).repeat(16, 2)
    np.testing.assert_array_equal(np.unique(prepare(labels, None, result.config)), np.arange(256))
    with_edges = found(tmp_path, 257, label_nc=256).config
    assert prepare(labels, labels.astype(np.int32), with_edges).max() == 511
    assert len(np.unique(class_palette(with_edges), axis=0)) == 256
    with pytest.raises(ConvertError, match=r"label_nc in 1\.\.256 .* but got 300"):
        found(tmp_path, 300, label_nc=300)


STARTS: list[tuple[int, int, dict[str, Any], tuple[str, int, int]]] = [
    (184, 64, {}, ("normal", 256, 256)),
    (184, 256, {}, ("normal", 512, 512)),
    (184, 16, {}, ("normal", 128, 128)),
    (36, 32, {}, ("more", 256, 512)),
    (36, 128, {}, ("more", 512, 1024)),
    (184, 64, {"upsampling": "more"}, ("more", 512, 512)),
    (184, 64, {"height": 512, "width": 512}, ("more", 512, 512)),
    (184, 32, {"height": 128}, ("normal", 128, 256)),
    (184, 32, {"width": 128}, ("normal", 256, 128)),
]


@pytest.mark.parametrize(("channels", "start", "fields", "size"), STARTS)
def test_the_size_of_a_style_generator_follows_from_fc(
    tmp_path: Path, channels: int, start: int, fields: dict[str, Any], size: tuple[str, int, int]
) -> None:
    config = found(tmp_path, channels, style=start, **fields).config
    assert (config.upsampling, config.height, config.width) == size


# Wrong keys


def differing(tmp_path: Path, change: Callable[[State], object]) -> Path:
    state = published(*published_shapes(184, 2))
    change(state)
    torch.save(state, tmp_path / "G.pth")
    return tmp_path / "G.pth"


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (
        lambda s: [s.pop(k) for k in ("fc.weight", "up_3.conv_1.bias", "head_0.conv_0.weight_orig")],
        # u and v of a conv without weight_orig are surplus; one text names all faults.
        r"got 5 faults: missing fc\.weight; missing head_0\.conv_0\.weight; missing up_3\.conv_1\.bias; "
        r"surplus head_0\.conv_0\.weight_u; surplus head_0\.conv_0\.weight_v;",
    ),
    "surplus": (lambda s: s.update({"up_9.x": torch.ones(1)}), r"1 faults: surplus up_9\.x"),
    "misshapen": (
        lambda s: s.update({"conv_img.bias": torch.ones(4)}),
        r"1 faults: conv_img\.bias is \[4\], not \[3\]",
    ),
    "u": (
        lambda s: [s.pop("up_0.conv_s.weight_u"), s.update({"up_1.conv_0.weight_v": torch.ones(5)})],
        r"2 faults: missing up_0\.conv_s\.weight_u; up_1\.conv_0\.weight_v is \[5\], not \[144\]; the file is not as",
    ),
    "weight norm": (
        lambda s: s.update({"fc.weight_g": torch.ones(5), "fc.weight_v": torch.ones(32, 184, 3, 3)}),
        r"1 faults: fc\.weight_g is \[5\], not \[32, 1, 1, 1\]",
    ),
    "no directions": (lambda s: s.update({"fc.weight_g": torch.ones(5)}), r"1 faults: missing fc\.weight_v"),
    "flat": (
        lambda s: s.update({"up_0.conv_s.weight_orig": torch.ones(3)}),
        r"up_0\.conv_s\.weight_orig is \[3\], not a conv's",
    ),
    "NaN": (
        lambda s: s["conv_img.weight"].fill_(torch.nan),
        r"finite weights in '.*G\.pth' but got .* conv_img\.weight;",
    ),
    "sigma 0": (lambda s: s["up_0.conv_s.weight_orig"].zero_(), r"NaN or infinity in up_0\.conv_s\.weight"),
    "integers": (
        lambda s: s.update({"conv_img.bias": torch.ones(3, dtype=torch.int64)}),
        r"conv_img\.bias is torch\.int64",
    ),
    "no SPADE": (lambda s: [s.pop(k) for k in list(s) if "mlp_shared" in k], "input channels, .* but got None"),
    "4x4": (
        lambda s: s.update({k: torch.ones(128, 184, 4, 4) for k in s if k.endswith("mlp_shared.0.weight")}),
        "variant of 'coco' but got .*spade_kernel 1, 3 or 5 but got 4; give a config",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_difference_is_named(tmp_path: Path, kind: str) -> None:
    change, text = CHANGES[kind]
    with pytest.raises(CheckpointError, match=text):
        convert(differing(tmp_path, change), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Wrong files


class Surprise:
    """Stands for any class whose unpickling could run code."""


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def truncated(path: Path) -> None:
    coco_file(path)
    path.write_bytes(path.read_bytes()[:-5000])


def legacy_truncated(path: Path) -> None:
    torch.save({"a": torch.ones(9999)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5000])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, r"'.*G\.pth': No such file or directory; check the path"),
    "empty": (written(b""), "with 0 bytes, which cannot be read .* fetch it again"),
    "noise": (written(bytes(range(256)) * 9), r"which cannot be read \(Unsupported operand 0\)"),
    "truncated zip": (truncated, "bytes, which cannot be read .* truncated or another kind of file"),
    "truncated pickle": (legacy_truncated, "bytes, which cannot be read"),
    "another zip": (other_zip, "which cannot be read"),
    "web page": (written(b"\n<!DOCTYPE html><html>"), "a web page: download the file itself"),
    "LFS": (
        written(b"version https://git-lfs.github.com/spec/v1\noid sha256:"),
        "a Git LFS pointer: run `git lfs pull`",
    ),
    "safetensors": (written(b"\x02\0\0\0\0\0\0\0{}"), "a safetensors file; give it to --weights as it is"),
    "object": (
        lambda p: torch.save({"net": Surprise()}, p),
        r"an object of \S+\.(Surprise|Linear) in .* so it is not read",
    ),
    "plain pickle": (
        lambda p: p.write_bytes(pickle.dumps(Surprise(), protocol=2)),
        r"an object of \S+\.Surprise in",
    ),
    "module": (
        lambda p: torch.save(nn.Linear(1, 1), p),
        r"an object of \S+\.(Surprise|Linear) in .* so it is not read",
    ),
    "a list": (lambda p: torch.save([torch.ones(1)], p), "expected a state dict of tensors but got list"),
    "a tensor": (lambda p: torch.save(torch.ones(1), p), "expected a state dict of tensors but got Tensor"),
    "numbered": (lambda p: torch.save({1: torch.ones(1)}, p), "expected a state dict of tensors but got dict"),
    "nothing": (lambda p: torch.save({}, p), "got an empty one"),
    "nested": (
        lambda p: torch.save({"netG": {"a": torch.ones(1)}, "epoch": 3}, p),
        r"got \{'netG': 'dict', 'epoch': 'int'\}",
    ),
    "discriminator": (
        lambda p: torch.save({"discriminator_0.model0.0.weight": torch.ones(1)}, p),
        "expected the generator in .* got the discriminator's weights; give latest_net_G.pth",
    ),
    "encoder": (
        lambda p: torch.save(published(*published_encoder_shapes(2)), p),
        "expected the generator in .* got the encoder's weights; give latest_net_G.pth",
    ),
    "pix2pixHD": (
        lambda p: torch.save({"model.1.weight": torch.ones(1)}, p),
        r"a SPADE generator in .* got keys such as model\.1\.weight; give latest_net_G\.pth",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_error_for_another_kind_of_file_names_the_kind(tmp_path: Path, kind: str) -> None:
    make, text = FILES[kind]
    make(tmp_path / "G.pth")
    with pytest.raises(ConvertError, match=text):
        convert(tmp_path / "G.pth", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_encoder_is_named(tmp_path: Path) -> None:
    plain, styled, encoder = (tmp_path / name for name in ("G.pth", "S.pth", "E.pth"))
    torch.save(published(*published_shapes(184, 2)), plain)
    torch.save(published(*published_shapes(184, 2, style=64)), styled)
    state = published(*published_encoder_shapes(4))
    torch.save(state, encoder)
    with pytest.raises(
        ConvertError, match=r"no style encoder, since '.*G\.pth' takes no style vector, but got '.*E\.pth'"
    ):
        convert(plain, encoder, tmp_path / "out")
    with pytest.raises(
        ConvertError, match=r"expected the encoder in .*S\.pth' but got the generator's weights; give latest_net_E"
    ):
        convert(styled, styled, tmp_path / "out")
    small = {k: v for k, v in state.items() if not k.startswith("layer6")}
    torch.save(small, encoder)
    with pytest.raises(ConvertError, match=r"a style encoder for images of 256 .* 1 faults: missing layer6\.0\.weight"):
        convert(styled, encoder, tmp_path / "out")


@pytest.mark.slow
def test_the_full_size_coco_file(tmp_path: Path) -> None:
    shapes, convs = published_shapes(184, 64)
    state = published(shapes, convs, rounds=1)
    assert len(state) == 234
    torch.save(state, tmp_path / "latest_net_G.pth")
    report = convert(tmp_path / "latest_net_G.pth", None, tmp_path / "coco.safetensors")
    assert report.config == PRESETS["coco"]
    assert str(report).endswith(
        "generator 97.48 M parameters, encoder none; spectral norm folded into 18 convs, 18 keys dropped"
    )
    assert round(report.generator_parameters / 1e6, 2) == 97.48
    checkpoint = load(tmp_path / "coco.safetensors")
    weight = checkpoint.generator.state_dict()["up_2.conv_1.weight"]
    matrix, u, v = (state[f"up_2.conv_1.weight_{s}"].numpy().astype(np.float64) for s in ("orig", "u", "v"))
    expected = matrix / (u @ matrix.reshape(len(u), -1) @ v)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("semantic_nc", "millions"), [(184, 97.48), (151, 96.49), (36, 93.05)])
def test_the_key_list_has_the_published_number_of_parameters(semantic_nc: int, millions: float) -> None:
    shapes, _ = published_shapes(semantic_nc, 64)
    trained = sum(int(np.prod(s)) for k, s in shapes.items() if ".param_free_norm." not in k)
    assert round(trained / 1e6, 2) == millions
