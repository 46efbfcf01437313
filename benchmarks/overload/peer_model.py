"""Triton model `spade` behind Triton's own dynamic batcher: the peer of the queue in `serving.requests.batcher`.

The engine, the checks of a request and the answer are the same as in `serving/triton/models/spade/model.py`. Triton
forms the batches, bounds the queue and drops what waited too long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.engines.choose import load_engine
from serving.protocol import UNKNOWN, RequestTimings
from serving.requests.batch import Done, RequestTensors, check_request, run_requests
from serving.triton.protocol import read_parameters
from serving.triton.tensors import make_tensor, read_inputs, silence_capsules
from spade_core.config import STYLE_DIM


class TritonPythonModel:
    """One engine, called with the batches that Triton forms."""

    def initialize(self, args: dict[str, str]) -> None:
        silence_capsules()
        options = read_parameters(args["model_config"])
        self.max_pixels: int = options["max_pixels"]
        weights = None if options["weights"] is None else Path(options["weights"])
        self.engine = load_engine(
            options["engine"], weights, options["preset"], options["precision"], options["threads"]
        )
        config = self.engine.config
        self.engine.synthesize(
            np.zeros((1, config.height, config.width), np.uint8),
            np.zeros((1, config.height, config.width), np.int32) if config.instance_edges else None,
            np.zeros((1, STYLE_DIM), np.float32) if config.style else None,
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """The responses of a batch, in the order of its requests."""
        began = time.perf_counter()
        inputs = [
            check_request(RequestTensors(**read_inputs(request)), self.engine.config, self.max_pixels)
            for request in requests
        ]
        results = run_requests(self.engine, inputs)
        return [self._response(*pair, began) for pair in zip(requests, results, strict=True)]

    def _response(self, request: Any, result: Done | Exception, began: float) -> Any:
        if isinstance(result, Exception):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result)))
        total = time.perf_counter() - began
        sent = json.loads(request.parameters() or "{}").get("sent_unix_us")
        queued = UNKNOWN if sent is None else max(0.0, time.time() - total - sent / 1e6)
        spent = result.timings
        timings = RequestTimings(
            queued, spent.plan_s, spent.codebook_s, spent.convs_s, total, result.batch_size, spent.distinct_share
        )
        return pb_utils.InferenceResponse(
            [make_tensor("image", result.images), make_tensor("timings", timings.rows(len(result.images)))]
        )
