"""`spade convert --from monai`: the checkpoint draws what MONAI's own SPADENet draws, through `spade synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from monai.networks.nets import SPADENet
from PIL import Image

from serving.cli.main import main
from serving.client import Client
from serving.engines.choose import load_engine
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, serve
from spade_core.files.checkpoints import CheckpointError, load
from spade_core.files.found_config import Known
from spade_core.files.from_monai import convert_monai
from spade_core.files.pickled import ConvertError
from spade_core.files.weights import info
from tests.serving.served import FREE_PORTS

CLASSES, SIDE = 5, 32
SIZE = {"height": SIDE, "width": SIDE}


def spadenet(dims: int = 2, out: int = 1, **options: Any) -> SPADENet:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "input_shape": [SIDE] * dims, "channels": [4, 6, 8], "is_vae": False, "spade_intermediate_channels": 8,
    }  # fmt: skip
    net = SPADENet(dims, 1, out, CLASSES, **(shape | options))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


def saved(path: Path, net: SPADENet) -> Path:
    torch.save(net.state_dict(), path)
    return path


def drawn_maps() -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(3).integers(0, CLASSES, (2, 8, 8), dtype=np.uint8)
    return coarse.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)


@torch.no_grad()
def images_of(net: SPADENet, labels: np.ndarray[Any, Any], black: float, white: float) -> np.ndarray[Any, Any]:
    """MONAI's images, scaled to grey levels: uint8 [N, H, W, 3], truncated as the engines truncate."""
    segmap = F.one_hot(torch.from_numpy(labels).long(), CLASSES).movedim(-1, 1).float().contiguous()
    levels = ((net(segmap)[0].double() - black) / (white - black) * 255).clamp(0, 255).byte()
    return levels.expand(-1, 3, -1, -1).movedim(1, -1).numpy()


@pytest.mark.parametrize("out", [1, 3])
def test_spade_synthesize_draws_the_images_of_monai(out: int, tmp_path: Path) -> None:
    net, labels = spadenet(out=out), drawn_maps()
    weights = saved(tmp_path / "net.pth", net)
    arguments = ["--from", "monai", "--set", f"height={SIDE}", "--set", f"width={SIDE}", "--image-range", "-1.5", "2"]
    made = tmp_path / "net.safetensors"
    result = CliRunner().invoke(main, ["convert", str(weights), *arguments, "--out", str(made)])
    assert result.exit_code == 0, result.output
    assert f"channels 8, 6, 4, {out}, hidden 8" in result.output
    assert info(made).config.architecture == "spadenet"
    for number, one in enumerate(labels):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    result = CliRunner().invoke(
        main, ["synthesize", *(str(tmp_path / f"{n}.png") for n in range(2)), "--weights", str(made),
               "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = images_of(net, labels, -1.5, 2.0)
    assert len(np.unique(expected)) > 50  # a picture, not one grey
    for number in range(2):
        image = np.asarray(Image.open(tmp_path / "out" / f"{number}.png").convert("RGB")).astype(int)
        # A value on the border of two grey levels may fall to either side.
        assert np.abs(image - expected[number]).max() <= 1
        assert (image == expected[number]).mean() > 0.99


def test_triton_serves_the_images_of_monai(tmp_path: Path) -> None:
    net, labels = spadenet(), drawn_maps()
    made = tmp_path / "net.safetensors"
    convert_monai(saved(tmp_path / "net.pth", net), made, Known(fields=SIZE), (-1.5, 2.0))
    expected = images_of(net, labels, -1.5, 2.0)
    assert len(np.unique(expected)) > 50  # a picture, not one grey
    options = ServeOptions(ModelOptions(made, threads=1, decoders=1), **FREE_PORTS)
    with serve(options) as server, Client(server.grpc_url) as client:
        images = client.synthesize(labels).images.astype(int)
    assert np.abs(images - expected).max() <= 1  # a value on the border of two grey levels may fall to either side
    assert (images == expected).mean() > 0.99


def test_a_label_map_of_another_size_and_an_engine_that_lacks_it_are_errors(tmp_path: Path) -> None:
    made = tmp_path / "net.safetensors"
    convert_monai(saved(tmp_path / "net.pth", spadenet()), made, Known(fields=SIZE), (0.0, 1.0))
    engine = load_engine("auto", made, threads=1)
    assert engine.synthesize(np.zeros((1, 16, 24), np.uint8), None, None).shape == (1, 16, 24, 3)
    with pytest.raises(ValueError, match="multiples of 8, but got 12x16"):
        engine.synthesize(np.zeros((1, 12, 16), np.uint8), None, None)
    with pytest.raises(ValueError, match="but got cpu and auto; leave both out"):
        load_engine("cpu", made)
    with pytest.raises(CheckpointError, match="got 'spadenet' in"):
        load(made)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dims": 3, "channels": [4, 6]}, "SPADENet in 2 dimensions but got 3"),
        ({"is_vae": True, "z_dim": 4}, "is_vae=False but got is_vae=True"),
        ({"norm": ("BATCH", {"affine": True})}, r"surplus: blocks\.0\.norm_0\.param_free_norm\.weight"),
        ({"out": 2}, "1 or 3 image channels but got 2"),
    ],
)
def test_another_network_is_an_error_that_says_why(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=text):
        convert_monai(saved(tmp_path / "net.pth", spadenet(**options)), tmp_path / "o", Known(fields=SIZE), (0.0, 1.0))
    assert not (tmp_path / "o").exists()


def test_wrong_facts_are_errors(tmp_path: Path) -> None:
    weights = saved(tmp_path / "net.pth", spadenet())
    with pytest.raises(ConvertError, match=r"expected label_nc 5, as .* says, but got 7"):
        convert_monai(weights, tmp_path / "o", Known(fields=SIZE | {"label_nc": 7}), (0.0, 1.0))
    torch.save({"fc.weight": torch.ones(1)}, weights)
    with pytest.raises(ConvertError, match=r"expected a SPADENet of MONAI in .* but got keys such as fc\.weight"):
        convert_monai(weights, tmp_path / "o", Known(), (0.0, 1.0))
