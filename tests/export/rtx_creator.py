"""Run by test_tensorrt_rtx.py: does the real parser ask a registered creator for the modulate step of an ONNX file?

rtx_creator.py ONNX NAMESPACE     nodes get the attribute plugin_namespace=NAMESPACE, or none where NAMESPACE is empty
"""

from __future__ import annotations

import json
import sys
from typing import Any

import onnx
import tensorrt_rtx_bindings as trt

path, namespace = sys.argv[1:]
created: list[str] = []


class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = name, "1", "spade"
        self.field_names = trt.PluginFieldCollection([])

    def create_plugin(self, _node: str, _fields: Any, _phase: Any) -> None:
        created.append(self.name)


model = onnx.load(path)
for node in model.graph.node:
    for attribute in [a for a in node.attribute if a.name == "plugin_namespace" and not namespace]:
        node.attribute.remove(attribute)
creators = [Creator("Modulate"), Creator("ModulateLeaky")]
for creator in creators:
    assert trt.get_plugin_registry().register_creator(creator, "spade")
builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
network = builder.create_network(0)
parser = trt.OnnxParser(network, builder.logger)
parsed = parser.parse(model.SerializeToString())
print(json.dumps({"created": created, "parsed": parsed}))
