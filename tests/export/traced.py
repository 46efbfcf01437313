"""Graphs that are traced once for all tests of a run: a trace takes 13 s of a core, for the smallest generator too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import export.onnx as exporter
from tests.made_once import made_once


@contextmanager
def traced_once(folder: Path) -> Iterator[None]:
    """Within, `export_graph` traces a graph once for all processes that share the folder, and reads it from then on.

    Everything after the trace is done anew: functions, properties, the file.
    """
    trace = exporter._traced
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "_traced", lambda graph, example: _kept(folder, trace, graph, example))
        yield


def _kept(folder: Path, trace: Callable[[Any, Any], Any], graph: Any, example: Any) -> Any:
    def make(path: Path) -> None:
        onnx.save_model(trace(graph, example), str(path))

    return onnx.load(str(made_once(folder / f"{_key(graph, example)}.onnx", make)))


def _key(graph: Any, example: Any) -> str:
    """A hash of all that a trace depends on: form, configuration, dtype, image, inputs, and every weight."""
    found = hashlib.sha256()
    config = replace(graph.config, preset="", class_names=())  # names reach the properties only
    inputs = [(tuple(t.shape), t.dtype) for t in torch.utils._pytree.tree_leaves((example.args, example.kwargs))]
    found.update(repr((type(graph).__name__, config, graph.dtype, graph.image, inputs, example.names)).encode())
    for name, tensor in sorted(graph.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
