"""A generator as an ONNX file: the dense graph, standard operators only."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from spade_core.config import STYLE_DIM
from spade_core.dense import synthesize_dense
from spade_core.generator import Generator

OPSET = 20


class _DenseGraph(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, symbols: Tensor, style: Tensor | None = None) -> Tensor:
        return torch.tanh(synthesize_dense(self.generator, symbols, style))


def export_dense(generator: Generator, path: Path) -> None:
    """Write the dense float32 graph: symbols int32 [N, H, W], style [N, 256] if any -> image [N, 3, H, W] in -1..1.

    The batch is dynamic, the size is the configuration's. Symbols are `spade_core.label_maps.prepare`'s.
    """
    config = generator.config
    # A batch of two: the exporter takes a size of one for a constant.
    inputs: tuple[Tensor, ...] = (torch.zeros((2, config.height, config.width), dtype=torch.int32),)
    if config.style:
        inputs += (torch.zeros((2, STYLE_DIM)),)
    names = ["symbols", "style"][: len(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own internals
        torch.onnx.export(
            _DenseGraph(generator),
            inputs,
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["image"],
            dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1, max=256)} for _ in inputs),
            external_data=True,
            verbose=False,
        )
