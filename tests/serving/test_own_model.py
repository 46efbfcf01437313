"""`spade serve --model module:function`: a network of one's own, accelerated, on a real Triton."""

from __future__ import annotations

import hashlib
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from served import FREE_PORTS, blocks

from serving.cli.main import main
from serving.client import Client, ServerError
from serving.engines.entry_point import EntryPoint
from serving.engines.one_hot import one_hot_engine
from serving.triton.model_config import ModelOptions
from serving.triton.served_facts import served_facts
from serving.triton.server import ServeOptions, serve

SOURCE = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    from spade_core import OneHotModel, accelerate


    class Spade(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(4)
            self.shared, self.gamma, self.beta = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((6, 8), (8, 4), (8, 4)))

        def forward(self, x, segmap):
            hidden = F.relu(self.shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest")))
            return self.norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)


    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.spade, self.last = nn.Conv2d(6, 4, 5, padding=2), Spade(), nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, segmap):
            return {"image": self.last(F.leaky_relu(self.spade(self.first(segmap), segmap)))}["image"], "not used"


    def network():
        torch.manual_seed(5)
        return OneHotModel(accelerate(Network()), classes=6, height=32, width=48, black=-0.5, white=0.5)


    def plain():
        return Network()


    def small():
        return OneHotModel(nn.Conv2d(6, 3, 3), classes=6, height=32, width=48)


    def fails():
        return 1 / 0


    NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a module `own_network`, which is forgotten afterwards."""
    (tmp_path / "own_network.py").write_text(textwrap.dedent(SOURCE))
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("own_network", None)


def test_triton_serves_the_network_of_an_entry_point(folder: Path) -> None:
    entry = EntryPoint("own_network:network", str(folder))
    labels = blocks(1, 2, 48, 6)[:, :32]
    model = entry.load()
    segmap = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 6).movedim(-1, 1).float().contiguous()
    with torch.no_grad():
        values = model.network(segmap)[0].double()
    expected = ((values + 0.5) * 255).clamp(0, 255).byte().movedim(1, -1).numpy().astype(int)
    assert len(np.unique(expected)) > 50
    options = ServeOptions(ModelOptions(threads=1, decoders=1, entry=entry), **FREE_PORTS)
    with serve(options) as server, Client(server.grpc_url) as client:
        images = client.synthesize(labels).images.astype(int)
        assert images.shape == (2, 32, 48, 3)
        assert np.abs(images - expected).max() <= 1  # a value on the border of two levels may fall to either side
        with pytest.raises(ServerError, match="6"):
            client.synthesize(np.full((1, 32, 48), 6, np.uint8))
        with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
            assert f'sha256="{model.sha256()}"' in answer.read().decode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_network", "expected module:function but got 'own_network'"),
        ("own_network:", "expected module:function"),
        ("no_such_module:f", "expected a module 'no_such_module' in .* or installed but got: No module named"),
        ("own_network:missing", "expected a function 'missing' in module 'own_network' but got none"),
        ("own_network:NUMBER", "but got int"),
        ("own_network:plain", "expected a OneHotModel of own_network:plain but got Network"),
    ],
)
def test_a_wrong_entry_point_says_what_is_wrong(name: str, text: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=text):
        EntryPoint(name, str(folder)).load()


def test_the_configuration_comes_from_a_process_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The parent of a server lives as long as the server, and would hold a second copy of the network."""
    config, _ = served_facts(ModelOptions(entry=EntryPoint("own_network:network", str(folder))))
    assert (config.label_nc, config.height, config.width, config.architecture) == (6, 32, 48, "module")
    assert "own_network" not in sys.modules
    with pytest.raises(ValueError, match="expected a OneHotModel of own_network:plain but got Network"):
        EntryPoint("own_network:plain", str(folder)).config()
    with pytest.raises(ValueError, match="own_network:fails but its process ended with status 1"):
        EntryPoint("own_network:fails", str(folder)).config()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_an_image_of_another_size_is_an_error(folder: Path) -> None:
    engine = one_hot_engine(EntryPoint("own_network:small", str(folder)).load(), "cpu", None)
    with pytest.raises(ValueError, match=r"'1 or 3', 32, 48\] of Conv2d but got \[1, 3, 30, 46\]"):
        engine.synthesize(np.zeros((1, 32, 48), np.uint8), None, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--weights", "own_network.py"], "--weights: the function of --model loads its own weights"),
        (["--preset", "demo"], "--preset: the function of --model loads its own weights"),
        (["--repository", "."], "--model: the published version decides that"),
        (["--engine", "cpu"], "expected engine auto or torch and precision auto or fp32"),
        (["--precision", "bf16"], "but got auto and bf16"),
    ],
)
def test_options_that_the_network_lacks_are_refused(
    arguments: list[str], text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["serve", "--model", "own_network:network", *arguments])
    assert result.exit_code != 0
    assert text in " ".join(result.output.split())


def test_the_hash_tells_values_names_and_dtypes_apart(folder: Path) -> None:
    model = EntryPoint("own_network:network", str(folder)).load()
    first = model.sha256()
    assert len(bytes.fromhex(first)) == hashlib.sha256().digest_size
    assert EntryPoint("own_network:network", str(folder)).load().sha256() == first
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert model.sha256() != first
