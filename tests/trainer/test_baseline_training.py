"""Every baseline and ablation of the paper trains by one line of configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small
from torch import nn

from spade_core.config import ConfigError, preset
from spade_core.files.checkpoints import load_any
from spade_core.models.registry import ABLATIONS, ablation, new_generator
from trainer.loop import train
from trainer.processes import SyncBatchNorm, synchronise_norms

WITH_NF = {name for name, change in ABLATIONS.items() if "nf" in change}


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - WITH_NF - {"spade", "spade, noise input"}))
def test_an_ablation_of_the_model_trains_and_is_exported(name: str, tmp_path: Path) -> None:
    # An instance norm needs more than the one pixel that a 32x32 model starts from.
    size = 64 if ABLATIONS[name].get("norm") == "instance" else 32
    model = {"preset": "demo", "style": False, "height": size, "width": size, **ABLATIONS[name]}
    change: dict[str, dict[str, Any]] = {"model": model, "data": {"scenes": 2}}
    result = train(small(tmp_path, **change))
    assert result.finished
    generator, encoder, _ = load_any(tmp_path / "weights.safetensors")
    assert generator.config.architecture == model.get("architecture", "spade")
    assert encoder is None
    assert all(torch.isfinite(tensor).all() for tensor in generator.state_dict().values())


def test_noise_input_trains_without_an_encoder(tmp_path: Path) -> None:
    result = train(small(tmp_path, networks={"encoder_nf": 0}, data={"scenes": 2}))
    assert result.finished
    generator, encoder, _ = load_any(tmp_path / "weights.safetensors")
    assert generator.config.style
    assert encoder is None


@pytest.mark.parametrize("name", ["spade", "concat", "pix2pixhd++", "pix2pixhd++ with spade"])
def test_every_batch_norm_is_synchronised_under_its_own_key(name: str) -> None:
    config = ablation(replace(preset("demo"), height=32, width=32, nf=2), name)
    generator = new_generator(config)
    keys = list(generator.state_dict())
    synchronise_norms(generator)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, SyncBatchNorm) for norm in norms)
    assert list(generator.state_dict()) == keys


def test_the_batch_norms_of_pix2pixhd_have_an_affine_that_starts_near_one() -> None:
    torch.manual_seed(0)
    config = ablation(replace(preset("demo"), height=32, width=32, nf=16), "pix2pixhd++")
    generator = new_generator(config)
    synchronise_norms(generator)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    weights = torch.cat([norm.weight.detach() for norm in norms])
    assert abs(float(weights.mean()) - 1) < 0.002
    assert 0.018 < float(weights.std()) < 0.022
    assert not any(norm.bias.any() for norm in norms)
    instance = new_generator(ablation(config, "pix2pixhd"))
    assert all(norm.weight is None for norm in instance.modules() if isinstance(norm, nn.InstanceNorm2d))


def test_an_encoder_decoder_with_style_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected style false .* for architecture 'pix2pixhd'"):
        small(model={"architecture": "pix2pixhd"})
