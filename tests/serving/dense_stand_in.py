"""Stands in for an engine of the dense graph on a machine without a GPU: the same inputs and output, by PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from serving.engines.choose import load_checkpoint
from serving.engines.reference import TorchEngine
from serving.triton.tensors import make_tensor, read_inputs, silence_capsules


class TritonPythonModel:
    """`model.plan` holds the path of the weights."""

    def initialize(self, args: dict[str, str]) -> None:
        silence_capsules()
        plan = Path(args["model_repository"], args["model_version"], "model.plan")
        self.engine = TorchEngine(load_checkpoint(Path(plan.read_text()), "demo").generator, form="dense", threads=1)
        print("stand-in: warm-up and requests follow", file=sys.stderr)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = []
        for request in requests:
            inputs = read_inputs(request)
            images = self.engine.synthesize(inputs["labels"], inputs.get("instances"), inputs.get("style"))
            responses.append(pb_utils.InferenceResponse([make_tensor("image", images)]))
        return responses
