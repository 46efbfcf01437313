"""The paper's baselines: sizes, data flow, checkpoints, and the paper's figure 3."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kernels.ops.plan import plan
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import ConfigError, GeneratorConfig, preset
from spade_core.files.checkpoints import CheckpointError, load, load_any, save
from spade_core.maps.colours import DEMO_CLASSES
from spade_core.models.costs import dense_macs, parameters
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.pix2pixhd import EncoderDecoder
from spade_core.models.registry import ABLATIONS, ablation, new_generator
from spade_core.models.spade import SPADE
from spade_core.models.spectral import folded_state, with_spectral_norm

SMALL = replace(preset("coco"), label_nc=5, height=32, width=64, nf=2)
BASELINES = [name for name, change in ABLATIONS.items() if "architecture" in change]
# A float64 norm of a constant map leaves at most the rounding of the mean, times 1 / sqrt(eps) = 316.
WASHED = 1e-9
# The largest difference of the two forms before tanh, in float32, relative to the largest value.
TOLERANCE = 1e-4


def image_of(generator: nn.Module, symbols: Tensor, *, form: str = "dense") -> Tensor:
    config: GeneratorConfig = generator.config  # type: ignore[assignment]
    style = torch.ones(len(symbols), 256) if config.style else None
    if form == "dense":
        return synthesize_dense(generator, symbols, style)  # type: ignore[arg-type]
    levels = plan(symbols.numpy().astype(np.uint16), config.level_sizes, config.symbols, config.spade_kernel)
    tensors = level_tensors(levels, torch.device("cpu"))
    return synthesize_codebook(generator, fold_generator(generator), symbols, tensors, style)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "millions"), [("concat", 79), ("pix2pixhd", 183), ("pix2pixhd++ with spade", 237)])
def test_parameters_on_ade20k_round_to_the_numbers_in_the_papers_table(name: str, millions: int) -> None:
    assert round(parameters(ablation(preset("ade20k"), name)) / 1e6) == millions


def test_macs_of_pix2pixhd_equal_a_count_by_hand() -> None:
    outside = 256**2 * 49 * 64 * (184 + 3)
    sides = 2 * sum((64 << i) * (128 << i) * 9 * (128 >> i) ** 2 for i in range(4))
    assert dense_macs(ablation(preset("coco"), "pix2pixhd")) == outside + sides + 18 * 1024**2 * 9 * 16**2


@pytest.mark.parametrize("name", [name for name, change in ABLATIONS.items() if "nf" not in change])
def test_every_ablation_draws_and_trains_each_parameter(name: str) -> None:
    torch.manual_seed(0)
    generator = new_generator(ablation(SMALL, name))
    image = image_of(generator, torch.randint(0, SMALL.symbols, (2, 32, 64)))
    assert image.shape == (2, 3, 32, 64)
    image.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())


@pytest.mark.parametrize("upsampling", ["normal", "more", "most"])
@pytest.mark.parametrize("style", [False, True])
def test_concat_has_the_depths_and_starts_of_spade(upsampling: str, style: bool) -> None:
    change = {"architecture": "concat", "upsampling": upsampling, "style": style, "height": 128, "width": 256}
    config = replace(SMALL, **change)  # type: ignore[arg-type]
    assert image_of(new_generator(config), torch.zeros(1, 128, 256, dtype=torch.int32)).shape == (1, 3, 128, 256)


@pytest.mark.parametrize("name", BASELINES)
def test_the_codebook_form_of_a_baseline_is_its_dense_form(name: str) -> None:
    torch.manual_seed(0)
    generator = new_generator(ablation(SMALL, name)).eval()
    symbols = torch.randint(0, SMALL.symbols, (2, 32, 64), dtype=torch.int32)
    with torch.no_grad():
        dense, codebook = (image_of(generator, symbols, form=form) for form in ("dense", "codebook"))
    assert dense.std() > 0
    assert (dense - codebook).abs().max() <= TOLERANCE * dense.abs().max()


def test_unknown_names_and_architectures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pix2pixhd, .*but got 'unet'"):
        ablation(SMALL, "unet")
    with pytest.raises(ConfigError, match="expected architecture 'spade' but got 'concat'"):
        Generator(ablation(SMALL, "concat"))


def test_encoder_decoder_from_a_preset_with_style_and_more_upsamplings() -> None:
    assert not ablation(preset("demo"), "pix2pixhd").style
    assert ablation(preset("cityscapes"), "pix2pixhd").level_sizes[0] == (16, 32)


# ---- Figure 3 ----


def test_figure_3_normalisation_washes_a_uniform_map_away_and_spade_does_not() -> None:
    """A map of sky alone and a map of grass alone: instance norm turns both into zero."""
    torch.manual_seed(0)
    names = [name for name, _ in DEMO_CLASSES]
    sky, grass = (torch.full((1, 32, 64), names.index(name)) for name in ("sky", "grass"))
    base = replace(preset("demo"), height=32, width=64, nf=4, norm="instance", style=False)
    pix2pixhd = new_generator(ablation(base, "pix2pixhd")).double()
    spade = new_generator(base).double()
    assert isinstance(pix2pixhd, EncoderDecoder)

    seen: dict[str, list[Tensor]] = {"conv": [], "norm": []}
    pix2pixhd.conv_in.conv.register_forward_hook(lambda *a: seen["conv"].append(a[-1]))
    pix2pixhd.conv_in.norm.register_forward_hook(lambda *a: seen["norm"].append(a[-1]))
    modulated: list[Tensor] = []
    first = spade.get_submodule("head_0.norm_0")
    assert isinstance(first, SPADE)
    first.register_forward_hook(lambda *a: modulated.append(a[-1]))
    with torch.no_grad():
        image_of(pix2pixhd, sky), image_of(pix2pixhd, grass)
        images = [image_of(spade, m) for m in (sky, grass)]

    assert (seen["conv"][0] - seen["conv"][1]).abs().max() > 0.1, "the convs told sky from grass"
    assert all(out.abs().max() <= WASHED for out in seen["norm"]), "and the norm turned both into zero"
    assert (modulated[0] - modulated[1]).abs().max() > 0.1
    assert (images[0] - images[1]).abs().max() > 0.01


# ---- Checkpoints and spectral norm ----


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_survives_its_checkpoint_and_is_kept_from_engines(name: str, tmp_path: Path) -> None:
    generator = new_generator(ablation(SMALL, name))
    for buffer in generator.buffers():
        buffer.fill_(2)
    save(tmp_path / "w", generator, dtype=torch.bfloat16)
    loaded, encoder, _ = load_any(tmp_path / "w")
    assert loaded.config == generator.config
    assert encoder is None
    stored = load_file(tmp_path / "w")
    statistics = [key for key in stored if key.endswith(("running_mean", "running_var"))]
    assert all(stored[key].dtype == torch.float32 for key in statistics)
    for key, tensor in loaded.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, generator.state_dict()[key].bfloat16().float()), key
    with pytest.raises(CheckpointError, match=f"got '{generator.config.architecture}' in .*engines run SPADE only"):
        load(tmp_path / "w")


def test_a_checkpoint_without_an_architecture_loads_as_spade(tmp_path: Path) -> None:
    generator = Generator(SMALL)
    save(tmp_path / "new", generator)
    fields = SMALL.to_dict()
    del fields["architecture"]
    header = {"spade.format": "1", "spade.config": json.dumps(fields)}
    save_file(load_file(tmp_path / "new"), tmp_path / "old", metadata=header)
    assert load(tmp_path / "old").config == SMALL


@pytest.mark.parametrize("name", BASELINES)
def test_spectral_norm_of_a_baseline_is_on_every_normed_conv_and_folds(name: str) -> None:
    torch.manual_seed(0)
    config = ablation(SMALL, name)
    generator = with_spectral_norm(new_generator(config)).train()
    symbols = torch.randint(0, SMALL.symbols, (2, 32, 64))
    with torch.no_grad():
        image_of(generator, symbols)
        found = {key for key in generator.state_dict() if key.endswith("weight_orig")}
        convs = {n for n, m in generator.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
        plain_convs = {n for n in convs if n.startswith(("fc", "conv_img")) or "mlp_" in n}
        assert {key.removesuffix(".weight_orig") for key in found} == convs - plain_convs
        plain = new_generator(config)
        plain.load_state_dict(folded_state(generator))
        expected = image_of(generator.eval(), symbols)
        assert (image_of(plain.eval(), symbols) - expected).abs().max() <= TOLERANCE * expected.abs().max()
