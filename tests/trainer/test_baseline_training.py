"""Every baseline and ablation of the paper trains by one line of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small

from spade_core.baselines import ABLATIONS
from spade_core.checkpoints import load_any
from spade_core.config import ConfigError
from trainer.loop import train

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


def test_an_encoder_decoder_with_style_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected style false .* of an encoder-decoder"):
        small(model={"architecture": "pix2pixhd"})
