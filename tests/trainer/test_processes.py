"""The objective is the same for any number of processes and accumulated passes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from objective_worker import PASSES
from safetensors.torch import load_file
from small_run import small

from spade_core.losses import kl_loss
from trainer.data.dataset import Positions, Stream, loader
from trainer.networks import build
from trainer.processes import Processes

pytestmark = pytest.mark.xdist_group("processes")  # the steps are taken once

# Float32 means in another order, through generator and encoder: a share of a parameter's largest gradient.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradients and losses of one step, by one, two and four processes."""
    folder = tmp_path_factory.mktemp("steps")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = Path(__file__).with_name("objective_worker.py")
    done = subprocess.run(
        [sys.executable, worker, folder, str(min(port, 65000))], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("updates", ["shared", "alternating"])
@pytest.mark.parametrize("world", [2, 4])
def test_a_step_is_the_same_in_any_number_of_processes(steps: Path, updates: str, world: int) -> None:
    one, several = (load_file(steps / f"{updates}-{n}.safetensors") for n in (1, world))
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for name, gradient in one.items():
        # A bias before a norm has a gradient of rounding alone.
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        assert float((several[name] - gradient).abs().max()) <= TOLERANCE * scale, name
    losses, means = (json.loads((steps / f"{updates}-{n}.json").read_text()) for n in (1, world))
    assert means == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert losses["kl"] > 0


def test_the_kl_term_is_the_mean_of_the_passes_sums(steps: Path) -> None:
    config = small(model={"norm": "instance", "height": 64, "width": 64}, networks={"spectral_norm": False})
    networks = build(config, Processes(0, 1, torch.device("cpu")))
    assert networks.encoder is not None
    positions = Positions(0, PASSES * config.optim.batch, 0, 1, config.optim.batch)
    with torch.no_grad():
        sums = [
            float(kl_loss(*networks.encoder(batch.images.float() / 127.5 - 1)))
            for batch in loader(Stream(config), config, positions, 0)
        ]
    found = json.loads((steps / "shared-1.json").read_text())["kl"]
    assert found == pytest.approx(100.0 * sum(sums) / PASSES, rel=1e-4)
