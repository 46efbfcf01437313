"""The modulate step of the codebook graph as ONNX local functions, and graphs without local functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import onnx.parser

from export.graphs import DOMAIN, NAMESPACE
from kernels.constants import SLOPE

# Runtimes inline the bodies. TensorRT takes a registered plugin of the same name (export/tensorrt/plugin.py) only where
# the node has the attribute `plugin_namespace`; without the attribute its parser prefers the body. There are two
# functions rather than one with an attribute, so that the name alone chooses the plugin's kernel.
_MODULATE_BODY = """
    per_pixel = Gather <axis = 0> (entries, index)
    channels_first = Transpose <perm = [0, 3, 1, 2]> (per_pixel)
    a, b = Split <axis = 1, num_outputs = 2> (channels_first)
    scaled = Mul (a, x)"""
FUNCTIONS = {
    "Modulate": _MODULATE_BODY + "\n    y = Add (scaled, b)",
    "ModulateLeaky": _MODULATE_BODY + f"\n    z = Add (scaled, b)\n    y = LeakyRelu <alpha = {SLOPE}> (z)",
}


def functions(opset: int) -> list[Any]:
    """spade::Modulate and spade::ModulateLeaky: x [N, C, h, w], entries [U5, 2C], index [N, h, w] -> y [N, C, h, w]."""
    return [
        onnx.parser.parse_function(
            f'<domain: "{DOMAIN}", opset_import: ["": {opset}]> '
            f"{name} <{NAMESPACE}> (x, entries, index) => (y) {{{body}\n}}"
        )
        for name, body in FUNCTIONS.items()
    ]


def fuse_leaky_relu(graph: Any) -> None:
    """Turn each Modulate whose only reader is a leaky ReLU into a ModulateLeaky, so the kernel writes the map once."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [n for n in graph.node if n.op_type == "Modulate"]:
        after = readers[node.output[0]]
        if len(after) == 1 and after[0].op_type == "LeakyRelu":
            node.op_type = "ModulateLeaky"
            node.output[0] = after[0].output[0]
            graph.node.remove(after[0])


def modulations(model: Any) -> int:
    """The number of modulate steps in a model: nodes that a plugin can take."""
    return sum(node.domain == DOMAIN and node.op_type in FUNCTIONS for node in model.graph.node)


def inlined(path: Path, weights: bool) -> Any:
    """The model of a file with every local function replaced by its body.

    Without `weights`, weights in a file beside the model stay there. Layers of one body then have names of their own.
    """
    return onnx.inliner.inline_local_functions(onnx.load(str(path), load_external_data=weights))
