"""An experiment: the main convs of an exported graph in INT8, quantised by ONNX Runtime and calibrated on label maps.

Weights are quantised per channel, activations per tensor, both symmetric, as TensorRT demands. All other operators
keep their precision. ONNX Runtime, OpenVINO and TensorRT read the file's QuantizeLinear and DequantizeLinear nodes.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner

from export.feeds import Feed
from export.onnx import PREFIX, ExportError, read_metadata, save

_MAIN_CONV = re.compile(r"generator\..+\.conv_[01s]\.weight")


def main_convs(model: Any) -> list[str]:
    """Names of the nodes that are a residual block's own convs (conv_0, conv_1, conv_s)."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(_MAIN_CONV.fullmatch(name) for name in node.input)
    ]


def quantise(path: Path, out: Path, feeds: Iterable[Feed]) -> int:
    """Write the float32 file `path` to `out` with its main convs in INT8, calibrated on `feeds`.

    Returns the number of INT8 convs. Raises ExportError for a file of another precision, or without feeds.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(path))
    metadata = read_metadata(model)
    if metadata["precision"] != "fp32":
        raise ExportError(
            f"[int8] expected a float32 file to quantise but got {metadata['precision']}; export with --precision fp32"
        )
    model = onnx.inliner.inline_local_functions(model)
    nodes = main_convs(model)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[Feed] = iter(feeds)
            self.count = 0

        def get_next(self) -> Feed | None:
            feed = next(self.feeds, None)
            self.count += feed is not None
            return feed

    reader = Reader()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # hides advice to preprocess, which the exporter's constant folding already did
    try:
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder, "inlined.onnx"))
            quantize_static(
                Path(folder, "inlined.onnx"),
                Path(folder, "int8.onnx"),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
            )
            quantised = onnx.load(str(Path(folder, "int8.onnx")))
    except ValueError as error:
        if reader.count:
            raise
        raise ExportError("[int8] expected label maps to calibrate on but got none; give at least one") from error
    finally:
        root.setLevel(level)
    properties = {PREFIX + key: value for key, value in (metadata | {"int8": f"{len(nodes)} main convs"}).items()}
    onnx.helper.set_model_props(quantised, properties)
    save(quantised, out)
    return len(nodes)
