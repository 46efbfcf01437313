"""`spade convert` with what the user knows: --preset, --config and --set."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from serving.cli.main import main
from spade_core.config import PRESETS
from spade_core.files.weights import info
from spade_core.models.generator import Generator

OWN = replace(PRESETS["ade20k"], preset="custom", label_nc=36, nf=2, height=64, width=128)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of a model with 36 classes of its own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(Generator(OWN).state_dict(), tmp_path / "net_G.pth")
    return tmp_path / "net_G.pth"


def convert(net: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["convert", str(net), "--out=out.safetensors", *arguments])
    return result.exit_code, result.output


def test_the_command_says_that_cityscapes_is_a_guess(net: Path) -> None:
    status, output = convert(net)
    assert status == 0
    assert "guess: as 'cityscapes', which has 36 input channels too" in output
    assert "--set label_nc=36" in output
    assert info(Path("out.safetensors")).config.preset == "cityscapes"


def test_set_describes_a_model_of_ones_own(net: Path) -> None:
    status, output = convert(net, "--set", "label_nc=36", "--set", "height=64", "--set", "width = 128")
    assert status == 0, output
    assert info(Path("out.safetensors")).config == OWN


@pytest.mark.parametrize("head", ["[model]\n", ""])
def test_a_toml_file_describes_it_too_and_set_goes_before_the_file(net: Path, head: str) -> None:
    Path("own.toml").write_text(
        f"{head}label_nc = 36\nheight = 64\nwidth = 64\n" + ("[optim]\nlr = 1.0\n" * bool(head))
    )
    status, output = convert(net, "--config", "own.toml", "--set", "width=128")
    assert status == 0, output
    assert info(Path("out.safetensors")).config == OWN


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "label_nc"], "expected --set FIELD=VALUE but got 'label_nc'"),
        (["--set", "classes=36"], "a field out of preset, label_nc, .* but got 'classes'"),
        (["--set", "style=yes"], "style to be of type bool but got 'yes'"),
        (["--preset", "coco"], "of another shape: fc.weight"),
        (["--config", "net_G.pth"], "a readable TOML file but got 'net_G.pth'"),
    ],
)
def test_a_wrong_value_ends_in_a_message(net: Path, arguments: list[str], text: str) -> None:
    status, output = convert(net, *arguments)
    assert status == 1
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1
    assert re.search(text, output)


def test_the_class_names_of_a_training_configuration_go_into_the_checkpoint(net: Path) -> None:
    names = [f"own {i}" for i in range(36)]
    Path("own.toml").write_text(f"[model]\npreset = 'custom'\nclasses = {names}\nheight = 64\nwidth = 128\n")
    status, output = convert(net, "--config", "own.toml")
    assert status == 0, output
    assert info(Path("out.safetensors")).config == replace(OWN, class_names=tuple(names))
