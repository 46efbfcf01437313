"""A GPU that CUDA has given up ends the server, so that its supervisor starts a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import FREE_PORTS, TINY, wait_until

from serving.client.client import Client, ServerError
from serving.engines.contract import DeviceLostError, Engine, Inputs, check_inputs
from serving.engines.cuda.lost import watched
from serving.engines.timings import Timings
from serving.requests.batch import run_requests
from serving.triton import server as server_module
from serving.triton.model_config import ModelOptions, write_repository
from serving.triton.server import ServeOptions, serve
from spade_core.types import Images


def test_an_error_that_stays_is_told_from_one_that_passes() -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..")

    text = r"CUDA keeps it: CUDA error: an illegal memory access .*; only a new"
    with pytest.raises(DeviceLostError, match=text), watched(lost):
        raise RuntimeError("[modulate_codebook] CUDA refused the launch")
    with pytest.raises(MemoryError), watched(lambda: None):
        raise MemoryError
    with pytest.raises(ValueError, match="shape"), watched(None):
        raise ValueError("shape")


class LostEngine(Engine):
    name, precision, config, calls = "lost", "fp32", TINY, 0

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        del inputs, timings
        self.calls += 1
        raise DeviceLostError("gone")


def test_a_batch_is_not_tried_again_on_a_lost_device() -> None:
    labels = np.zeros((1, 64, 64), np.uint8)
    one, engine = check_inputs(labels, np.zeros((1, 64, 64), np.int32), None, TINY), LostEngine()
    results = run_requests(engine, [one, one, one])
    assert [type(result) for result in results] == [DeviceLostError] * 3
    assert engine.calls == 1


# Added to the model that Triton loads: its engine fails as one on a lost GPU does.
LOST = """

from serving.engines.contract import DeviceLostError
from serving.engines.reference import TorchEngine

usual = TorchEngine.run

def run(self, inputs, timings=None):
    if inputs.labels.max() > 0:  # the warm-up's map is all zeros
        raise DeviceLostError("[engine] an illegal memory access was encountered")
    return usual(self, inputs, timings)

TorchEngine.run = run
"""


@pytest.mark.xdist_group("device-lost")
def test_a_server_whose_gpu_is_lost_answers_and_ends(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*arguments: Any) -> Path:
        repository = write_repository(*arguments)
        with (repository / "spade" / "1" / "model.py").open("a") as model:
            model.write(LOST)
        return repository

    monkeypatch.setattr(server_module, "write_repository", write)
    model = ModelOptions(tiny_weights, engine="torch", precision="fp32", threads=1, decoders=1)
    labels = np.ones((1, 64, 64), np.uint8)
    with serve(ServeOptions(model, **FREE_PORTS)) as server:
        with Client(server.grpc_url) as client, pytest.raises(ServerError, match="internal error"):
            client.synthesize(labels, np.zeros((1, 64, 64), np.int32))
        wait_until(lambda: server.process.poll() is not None, "the server to end")
        assert "the server ends: [engine] an illegal memory access was encountered" in server.log.read_text()
