"""Another SPADE-family generator is one class and its lines in the two tables: everything else then takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.ops.plan import plan
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import ARCHITECTURES, Architecture, ConfigError, GeneratorConfig, preset
from spade_core.files.checkpoints import CheckpointError, load, load_any, save
from spade_core.models.costs import dense_macs, parameters
from spade_core.models.dense import synthesize_dense
from spade_core.models.form import AnyGenerator, Form
from spade_core.models.registry import GENERATORS, new_generator
from spade_core.models.spade import ResidualBlock
from spade_core.models.spectral import spectral_convs

TOLERANCE = 1e-5  # the two forms sum in another order, float32


class TwoBlocks(AnyGenerator):
    """Two SPADE blocks with one x2 step between, from the label map at half the size."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.fc = nn.Conv2d(config.semantic_nc, 2 * config.nf, 3, padding=1)
        self.small = ResidualBlock(2 * config.nf, 2 * config.nf, config)
        self.large = ResidualBlock(2 * config.nf, config.nf, config)
        self.conv_img = nn.Conv2d(config.nf, 3, 3, padding=1)

    def draw(self, form: Form, style: Tensor | None) -> Tensor:  # noqa: ARG002
        x = self.small(form.start(self.fc), form.normalise)
        x = self.large(F.interpolate(x, scale_factor=2, mode="nearest"), form.normalise)
        image: Tensor = self.conv_img(x)
        return image


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeneratorConfig]:
    monkeypatch.setitem(ARCHITECTURES, "two-blocks", Architecture({"normal": 1}, style=False, engines=False))
    monkeypatch.setitem(GENERATORS, "two-blocks", TwoBlocks)
    return replace(preset("coco"), architecture="two-blocks", label_nc=5, height=8, width=16, nf=2)


def test_every_architecture_has_a_network() -> None:
    assert list(GENERATORS) == list(ARCHITECTURES)


def test_both_forms_draw_the_same_image(config: GeneratorConfig) -> None:
    torch.manual_seed(0)
    generator = new_generator(config).eval()
    symbols = torch.randint(0, config.symbols, (2, 8, 16), dtype=torch.int32)
    levels = plan(symbols.numpy().astype(np.uint16), config.level_sizes, config.symbols, config.spade_kernel)
    tensors = level_tensors(levels, torch.device("cpu"))
    with torch.no_grad():
        dense = synthesize_dense(generator, symbols, None)
        codebook = synthesize_codebook(generator, fold_generator(generator), symbols, tensors, None)
    assert config.level_sizes == ((4, 8), (8, 16))
    assert dense.shape == (2, 3, 8, 16)
    assert dense.std() > 0
    assert (dense - codebook).abs().max() <= TOLERANCE * dense.abs().max()


def test_a_checkpoint_holds_the_generator_and_is_kept_from_engines(config: GeneratorConfig, tmp_path: Path) -> None:
    generator = new_generator(config)
    save(tmp_path / "w", generator)
    loaded, _, _ = load_any(tmp_path / "w")
    assert type(loaded) is TwoBlocks
    for key, tensor in generator.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    with pytest.raises(CheckpointError, match=r"got 'two-blocks' in .*engines run SPADE only"):
        load(tmp_path / "w")


def test_costs_and_spectral_norm_cover_the_generator(config: GeneratorConfig) -> None:
    generator = new_generator(config)
    assert isinstance(generator, TwoBlocks)
    convs = [generator.small.conv_0, generator.small.conv_1]
    convs += [conv for conv in (generator.large.conv_0, generator.large.conv_1, generator.large.conv_s) if conv]
    assert list(spectral_convs(generator)) == convs
    assert parameters(config) == sum(parameter.numel() for parameter in generator.parameters())
    assert dense_macs(config) > 0


def test_what_the_architecture_lacks_is_refused(config: GeneratorConfig) -> None:
    with pytest.raises(ConfigError, match=r"style false and upsampling normal for .*'two-blocks' but got style True"):
        replace(config, style=True)
    with pytest.raises(ConfigError, match=r"upsampling normal for .* but got style False, upsampling 'more'"):
        replace(config, upsampling="more")
