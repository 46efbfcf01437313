"""Checkpoints: a saved model loads again, and every fault of a file has its own text."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spade_core.config import PRESETS, GeneratorConfig
from spade_core.files.checkpoints import load, save
from spade_core.files.weights import CheckpointError, info
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator

PLAIN = replace(PRESETS["coco"], nf=2, height=32, width=32, label_nc=3)
STYLED = replace(PRESETS["demo"], nf=2, height=32, width=64, norm="instance", spade_kernel=1, label_nc=4)


def randomised(config: GeneratorConfig, seed: int = 0) -> Generator:
    """A generator whose every tensor is random, running statistics included."""
    torch.manual_seed(seed)
    generator = Generator(config)
    for tensor in generator.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return generator


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


@pytest.mark.parametrize("config", [PLAIN, STYLED, replace(PLAIN, upsampling="most", height=128, width=128)])
def test_a_saved_model_loads_again(tmp_path: Path, config: GeneratorConfig) -> None:
    generator, encoder = randomised(config), StyleEncoder(4) if config.style else None
    path = tmp_path / "weights.safetensors"
    save(path, generator, encoder, {"trained": "false", "classes": "sky, grass"})
    loaded = load(path)
    assert loaded.config == config
    assert loaded.generator.config == config
    assert loaded.metadata == {"trained": "false", "classes": "sky, grass"}
    assert_same(loaded.generator, generator)
    assert not loaded.generator.training
    assert not any(t.is_meta for t in loaded.generator.state_dict().values())
    assert (loaded.encoder is None) == (encoder is None)
    if encoder is not None and loaded.encoder is not None:
        assert_same(loaded.encoder, encoder)
        assert not loaded.encoder.training
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_plain_safetensors_with_prefixed_keys(tmp_path: Path) -> None:
    save(tmp_path / "w", randomised(STYLED), StyleEncoder(4))
    with safe_open(tmp_path / "w", framework="pt") as file:
        assert set(file.metadata()) == {"spade.format", "spade.config"}
        assert json.loads(file.metadata()["spade.config"]) == STYLED.to_dict()
        keys = set(file.keys())
    assert {"generator.fc.weight", "encoder.layer1.0.weight", "generator.up_3.norm_s.mlp_beta.bias"} <= keys
    assert not any("num_batches_tracked" in key for key in keys)


def test_bfloat16_on_disk_is_float32_in_memory_and_statistics_stay_exact(tmp_path: Path) -> None:
    generator = randomised(PLAIN)
    save(tmp_path / "w", generator, dtype=torch.bfloat16)
    stored, loaded = load_file(tmp_path / "w"), weights(load(tmp_path / "w").generator)
    assert stored["generator.fc.weight"].dtype == torch.bfloat16
    for key, tensor in weights(generator).items():
        expected = tensor if ".param_free_norm." in key else tensor.bfloat16().float()
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], expected), key


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    """The first bytes are the header's length, and may look like the start of a pickle or any other file."""
    generator, starts = randomised(PLAIN), set()
    for i in range(32):  # headers are padded to multiples of 8 bytes, so 32 lengths give every low byte
        save(tmp_path / "w", generator, None, {"note": "x" * 8 * i})
        starts.add((tmp_path / "w").read_bytes()[0])
        assert info(tmp_path / "w").metadata == {"note": "x" * 8 * i}
    assert 0x80 in starts


def test_info_reads_the_header_alone(tmp_path: Path) -> None:
    generator, encoder = randomised(STYLED), StyleEncoder(4)
    save(tmp_path / "w", generator, encoder, {"note": "x"}, dtype=torch.bfloat16)
    found = info(tmp_path / "w")
    assert (found.config, found.metadata, found.dtype) == (STYLED, {"note": "x"}, "bfloat16")
    assert found.generator_parameters == sum(p.numel() for p in generator.parameters())
    assert found.encoder_parameters == sum(p.numel() for p in encoder.parameters())
    save(tmp_path / "w", randomised(PLAIN))
    assert info(tmp_path / "w").encoder_parameters == 0
    assert info(tmp_path / "w").dtype == "float32"


def test_loaded_weights_do_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    generator = randomised(PLAIN)
    save(path, generator)
    loaded = load(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size)
    assert_same(loaded.generator, generator)


# Writing


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w"
    save(path, randomised(PLAIN, 1))
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"expected to write '.*/w' but got .*No space left.*check the folder"):
        save(path, randomised(PLAIN, 2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected to write '.*absent/w' but got .*check the folder"):
        save(tmp_path / "absent" / "w", randomised(PLAIN))


def test_models_and_metadata_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    path, generator = tmp_path / "w", randomised(PLAIN)
    with pytest.raises(CheckpointError, match=r"expected strings, under keys not in 'spade\.', but got \['spade\.x'\]"):
        save(path, generator, metadata={"spade.x": "1"})
    with pytest.raises(CheckpointError, match=r"but got \['epoch'\]; rename, or str\(\)"):
        save(path, generator, metadata={"epoch": 3})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match=r"float32 or bfloat16 but got torch\.float16"):
        save(path, generator, dtype=torch.float16)
    with pytest.raises(CheckpointError, match=r"expected no style encoder, since config\.style is false"):
        save(path, generator, StyleEncoder(4))
    with torch.no_grad():
        generator.conv_img.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinity in generator\.conv_img\.weight; the training diverged"):
        save(path, generator)
    assert not path.exists()


# Reading

Change = Callable[[dict[str, Tensor], dict[str, str]], object]


def changed(tmp_path: Path, change: Change) -> Path:
    path = tmp_path / "changed"
    save(path, randomised(STYLED), StyleEncoder(4))
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)
    return path


def infinity(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    tensors["generator.fc.bias"][3] = torch.inf
    tensors["encoder.fc_mu.bias"][0] = torch.nan


CHANGES: dict[str, tuple[Change, str]] = {
    "no format": (lambda _, m: m.pop("spade.format"), "'spade.format' in the header .* of another program"),
    "format": (
        lambda _, m: m.update({"spade.format": "9"}),
        "expected format 1 but got '9' .* the version that wrote it",
    ),
    "no config": (lambda _, m: m.pop("spade.config"), r"expected a configuration .* 'spade\.config'"),
    "config text": (lambda _, m: m.update({"spade.config": "{"}), "expected a configuration in the header"),
    "config list": (lambda _, m: m.update({"spade.config": "[]"}), "missing .*'nf'"),
    "config field": (
        lambda _, m: m.update({"spade.config": json.dumps(STYLED.to_dict() | {"nf": 3})}),
        "expected nf to be even and at least 2 but got 3",
    ),
    "missing": (
        lambda t, _: ([t.pop(k) for k in ("generator.fc.bias", "generator.up_1.conv_s.weight", "encoder.fc_mu.bias")]),
        r"got 3 faults: missing generator\.fc\.bias; missing generator\.up_1\.conv_s\.weight; missing encoder\.fc_mu",
    ),
    "surplus": (
        lambda t, _: t.update({"generator.fc.scale": torch.ones(1), "other": torch.ones(1)}),
        r"2 faults: surplus generator\.fc\.scale; surplus other",
    ),
    "misshapen": (
        lambda t, _: t.update({"generator.conv_img.bias": torch.ones(4)}),
        r"1 faults: generator\.conv_img\.bias is \[4\], not \[3\]",
    ),
    "no first layer": (lambda t, _: t.pop("encoder.layer1.0.weight"), r"1 faults: missing encoder\.layer1\.0\.weight"),
    "float16": (
        lambda t, _: t.update({"generator.conv_img.bias": torch.ones(3, dtype=torch.float16)}),
        r"generator\.conv_img\.bias is of dtype F16",
    ),
    "NaN": (infinity, r"NaN or infinity in encoder\.fc_mu\.bias, generator\.fc\.bias"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_differs_says_where(tmp_path: Path, kind: str) -> None:
    change, text = CHANGES[kind]
    with pytest.raises(CheckpointError, match=text):
        load(changed(tmp_path, change))


@pytest.mark.parametrize("reader", [load, info])
def test_files_of_other_kinds(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    path = tmp_path / "w"
    with pytest.raises(CheckpointError, match=r"'.*/w': No such file or directory; check the path"):
        reader(path)
    for content in (
        b"",
        b"hello",
        b"<html>" * 9,
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"x",
    ):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"expected a whole safetensors file but got .* truncated or another kind"
        ):
            reader(path)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="a PyTorch file; run `spade convert`"):
        reader(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="a safetensors file of another program"):
        reader(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save(path, randomised(STYLED))
    whole = path.read_bytes()
    for length in [*range(0, 60, 7), *range(60, len(whole), len(whole) // 13), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="truncated or another kind of file"):
            load(path)
