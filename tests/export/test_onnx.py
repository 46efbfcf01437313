"""The dense ONNX graph computes what PyTorch computes, in two runtimes and at any batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch

from export.onnx import export_dense
from spade_core.config import preset
from spade_core.dense import synthesize_dense
from spade_core.seeded import seeded_generator
from spade_core.style import style_from_seed

TOLERANCE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def feeds(symbols: int, size: tuple[int, int], batch: int, style: bool) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(batch)
    blocks = rng.integers(0, symbols, (batch, size[0] // 8, size[1] // 8)).repeat(8, 1).repeat(8, 2)
    feed: dict[str, npt.NDArray[Any]] = {"symbols": blocks.astype(np.int32)}
    if style:
        feed["style"] = np.stack([style_from_seed(i) for i in range(batch)])
    return feed


@pytest.mark.parametrize(("name", "norm"), [("coco", "syncbatch"), ("demo", "instance")])
def test_two_runtimes_agree_with_pytorch(name: str, norm: str, tmp_path: Path) -> None:
    config = replace(preset(name), label_nc=7, nf=4, height=64, width=128, norm=norm)  # type: ignore[arg-type]
    generator = seeded_generator(config)
    path = tmp_path / "dense.onnx"
    export_dense(generator, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        feed = feeds(config.symbols, (64, 128), batch, config.style)
        with torch.inference_mode():
            style = torch.from_numpy(feed["style"]) if config.style else None
            expected = torch.tanh(synthesize_dense(generator, torch.from_numpy(feed["symbols"]), style)).numpy()
        assert expected.std() > 0.1
        assert np.abs(session.run(None, feed)[0] - expected).max() <= TOLERANCE
        assert np.abs(compiled(feed)[0] - expected).max() <= TOLERANCE
