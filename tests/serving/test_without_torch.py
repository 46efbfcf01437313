"""A Python without PyTorch draws the same images, and what needs PyTorch says so."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.isa import supported_isas
from serving.engines.cpu.engine import CpuEngine
from spade_core.config import preset
from spade_core.files.checkpoints import load, save
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.models.style import style_from_seed

SIZE = (64, 64)
CONFIG = replace(preset("demo"), nf=4, height=SIZE[0], width=SIZE[1])

WITHOUT_TORCH = """
import hashlib, importlib, json, sys
from pathlib import Path
sys.modules["torch"] = None  # an import raises, as where PyTorch is not installed
"""

DRAW = """
import numpy as np
from serving.engines.choose import choose, load_engine
from serving.requests.photo_styles import PhotoStyles
from spade_core.maps.drawn import demo_map
from spade_core.models.style import style_from_seed
hashes = {}
for name in sys.argv[2:]:
    engine = load_engine("auto", Path(name), precision=sys.argv[1], threads=1)
    labels = demo_map(0, engine.config)[0]
    image = engine.synthesize(labels[None], None, style_from_seed(3)[None])
    hashes[name] = hashlib.sha256(image.tobytes()).hexdigest()
    photo = Path(name).with_name("photo.png").read_bytes()
    hashes["style of " + name] = PhotoStyles(Path(name), "demo").style(photo).tolist()
print(json.dumps(hashes))
"""

REFUSALS = """
from serving.engines.choose import choose, load_engine
calls = {
    "engine": lambda: choose("torch"),
    "seeded": lambda: load_engine("cpu", None, "coco", "fp32", 1),
    "pth": lambda: load_engine("cpu", Path(sys.argv[1]), "coco", "fp32", 1),
}
texts = {}
for name, call in calls.items():
    try:
        call()
    except (ValueError, RuntimeError) as error:
        texts[name] = f"{type(error).__name__}: {error}"
print(json.dumps(texts))
"""

IMPORTS = """
import types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")  # Triton's own
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({"torch": any(name.split(".")[0] == "torch" and module for name, module in sys.modules.items())}))
"""


def run(code: str, *arguments: object) -> Mapping[str, str]:
    """The JSON that `code` prints in a Python without PyTorch."""
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same model in float32 and in bfloat16, with a style encoder, beside a photo."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("weights")
    generator, encoder = seeded_generator(CONFIG), seeded_encoder(2)
    Image.effect_noise((90, 64), 90).convert("RGB").save(folder / "photo.png")
    save(folder / "float32.safetensors", generator, encoder)
    save(folder / "bfloat16.safetensors", generator, encoder, dtype=torch.bfloat16)
    return [folder / "float32.safetensors", folder / "bfloat16.safetensors"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_images_are_the_same_bits(files: list[Path], precision: str) -> None:
    needed = {"bf16": {"avx512bf16", "amx"}, "int8": {"amx"}}.get(precision)
    if needed and not needed & set(supported_isas()):
        pytest.skip(f"this processor does not multiply in {precision}")
    if not supported_isas():
        pytest.skip("this processor has no native kernels")
    found = run(DRAW, precision, *files)
    labels, style = demo_map(0, CONFIG)[0], style_from_seed(3)
    for file in files:
        image = CpuEngine(load(file).generator, precision, 1).synthesize(labels[None], None, style[None])
        assert found[str(file)] == hashlib.sha256(image.tobytes()).hexdigest()
        assert np.std(found[f"style of {file}"]) > 0.1
    assert found[str(files[0])] != found[str(files[1])]


def test_what_needs_pytorch_says_so(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "latest_net_G.pth")
    found = run(REFUSALS, tmp_path / "latest_net_G.pth")
    install = r"install it: `pip install -e '.[torch]'` in the checkout of SPADE Serve"
    for name, what, instead in [
        ("engine", "engine torch", "take --engine cpu"),
        ("seeded", "preset 'coco' without --weights, which draws seeded weights,", "give --weights a file"),
    ]:
        assert found[name] == (
            f"NoTorchError: [pytorch] expected PyTorch, which {what} needs, but this Python has none; {instead}, or "
            f"{install}"
        )
    assert "CheckpointError" in found["pth"]
    assert "a PyTorch file; run `spade convert` on it once, on a machine with PyTorch" in found["pth"]


def test_the_server_imports_no_pytorch() -> None:
    modules = (
        "serving.cli.main", "serving.cli.serve", "serving.cli.synthesize", "serving.cli.studio", "serving.cli.key",
        "serving.cli.jobs", "serving.gateway.__main__", "serving.gateway.pair", "serving.supervisor.supervised",
        "serving.triton.foreground", "serving.triton.repository", "serving.triton.models.spade.model",
        "serving.triton.models.spade_image.model",
    )  # fmt: skip
    assert run(IMPORTS, *modules) == {"torch": False}


def test_commands_that_need_pytorch_name_the_extra(files: list[Path]) -> None:
    code = "sys.argv[0] = 'spade'; from serving.cli.main import main; main()"
    command = [sys.executable, "-c", WITHOUT_TORCH + code]
    arguments = ["export", "--weights", files[0], "--to", "onnx", "--out", files[0].parent / "out"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "expected the package torch but it is not installed; run `pip install -e '.[torch]'`" in done.stderr
    shown = subprocess.run([*command, "info", str(files[0])], capture_output=True, text=True, timeout=300, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "not counted, since PyTorch is not installed" in shown.stdout
