"""Triton model `spade`: label maps [H, W] as tensors in, images [H, W, 3] as tensors out. See docs/serving.md."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from serving.engines.choose import load_engine
from serving.engines.timings import Timings
from serving.requests.batch import Done, RequestError, RequestTensors, check_request
from serving.requests.batcher import Batcher, QueueFullError, Request
from serving.requests.deadlines import CancelledError, Deadline, WaitedTooLongError, wait_limit_s
from serving.triton.metrics import SPADE, Metrics
from serving.triton.protocol import UNKNOWN, check_package, read_parameters
from serving.triton.tensors import error_response, make_tensor, read_inputs, send, silence_capsules
from spade_core.config import STYLE_DIM
from spade_core.files.manifest import verify_manifest

log = logging.getLogger("spade")


class TritonPythonModel:
    """One engine. Triton calls `execute` as requests come; batches form in the queue before the engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads and warms up the engine: Triton reports the model ready when this returns."""
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        silence_capsules()
        options = read_parameters(args["model_config"])
        check_package(options)
        version = Path(args["model_repository"], args["model_version"])
        if options["published"]:
            verify_manifest(version)  # a version that is not whole is refused, and the one before it stays
        weights = options["weights"]
        self.max_pixels: int = options["max_pixels"]
        self.engine = load_engine(
            options["engine"],
            None if weights is None else version / weights,  # a published one lies here, any other path is absolute
            options["preset"],
            options["precision"],
            options["threads"],
        )
        config = self.engine.config
        labels = {
            "model": "spade",
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "preset": config.preset,
        }
        self.metrics = Metrics(pb_utils, SPADE, labels)
        size = (1, config.height, config.width)
        self.engine.synthesize(
            np.zeros(size, np.uint8),
            np.zeros(size, np.int32) if config.instance_edges else None,
            np.zeros((1, STYLE_DIM), np.float32) if config.style else None,
        )
        self.timeout_s: float = options["queue_timeout_s"]
        self.batcher = Batcher(
            self.engine,
            max_batch=json.loads(args["model_config"])["max_batch_size"],
            queue_size=options["queue_size"],
            delay_s=options["queue_delay_us"] / 1e6,
            on_batch=self._count_batch,
            on_queue=lambda waiting: self.metrics.set("spade_waiting_requests", waiting),
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Queues the requests; each is answered through its response sender, an error response where it is bad."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._queue(request, sender)
            except Exception as error:  # noqa: BLE001 - one request's failure must not reach the others
                send(sender, self._refuse(error))

    def finalize(self) -> None:
        """Triton calls this when the last request of a version that goes is answered."""
        self.batcher.close()
        self.metrics.close()

    def _queue(self, request: Any, sender: Any) -> None:
        sent = sent_seconds(request)
        inputs = check_request(RequestTensors(**read_inputs(request)), self.engine.config, self.max_pixels)

        def answer(result: Done | Exception, began: float) -> None:
            send(sender, self._response(result, sent, began))

        limit_s = wait_limit_s(self.timeout_s, request.timeout() / 1e6)
        self.batcher.submit(Request(inputs, answer, Deadline(limit_s, sender.is_cancelled)))

    def _count_batch(self, timings: Timings, size: int) -> None:
        self.metrics.observe("spade_batch_size", size)
        self.metrics.increment("spade_cached_maps_total", timings.cached_maps)
        self.metrics.observe("spade_plan_seconds", timings.plan_s)
        self.metrics.observe("spade_codebook_seconds", timings.codebook_s)
        self.metrics.observe("spade_convs_seconds", timings.convs_s)
        self.metrics.observe("spade_distinct_patch_share", timings.distinct_share)

    def _response(self, result: Done | Exception, sent: float | None, began: float) -> Any:
        """Of a request whose client sent it at `sent` (seconds since 1970) and whose batch began at `began`."""
        if isinstance(result, Exception):
            return self._refuse(result)
        total = time.perf_counter() - began
        queued = None if sent is None else max(0.0, time.time() - total - sent)
        self.metrics.increment("spade_requests_total.ok")
        self.metrics.increment("spade_images_total", len(result.images))
        self.metrics.observe("spade_request_seconds", total)
        if queued is not None:
            self.metrics.observe("spade_queue_seconds", queued)
        row = timings_row(queued, result.timings, total, result.batch_size)
        return pb_utils.InferenceResponse(
            [
                make_tensor("image", result.images),
                make_tensor("timings", np.tile(row, (len(result.images), 1))),  # [N, 7]
            ]
        )

    def _refuse(self, error: Exception) -> Any:
        if isinstance(error, CancelledError):
            self.metrics.increment("spade_requests_total.cancelled")
            return error_response("[spade] the client cancelled this request", pb_utils.TritonError.CANCELLED)
        if isinstance(error, QueueFullError | WaitedTooLongError):
            self.metrics.increment("spade_requests_total.refused")
            return error_response(str(error), pb_utils.TritonError.UNAVAILABLE)
        if isinstance(error, ValueError):
            self.metrics.increment("spade_requests_total.invalid")
            return error_response(str(error), pb_utils.TritonError.INVALID_ARG)
        self.metrics.increment("spade_requests_total.failed")
        reference = secrets.token_hex(4)
        log.error("internal error %s", reference, exc_info=error)
        return error_response(
            f"[spade] internal error {reference}; the server's log has the details", pb_utils.TritonError.INTERNAL
        )


def sent_seconds(request: Any) -> float | None:
    """When the client sent a request (its parameter `sent_unix_us`), seconds since 1970; None without the parameter.

    Raises RequestError where the parameter is no number.
    """
    sent: int | None = json.loads(request.parameters() or "{}").get("sent_unix_us")
    if sent is None:
        return None
    if isinstance(sent, bool) or not isinstance(sent, int):
        raise RequestError(f"[spade] expected sent_unix_us as an integer, microseconds since 1970, but got {sent!r}")
    return sent / 1e6


def timings_row(queued: float | None, timings: Timings, total: float, batch_size: int) -> npt.NDArray[np.float32]:
    """The values in the order of `serving.triton.protocol.RequestTimings`."""
    queue_s = UNKNOWN if queued is None else queued
    return np.array(
        [queue_s, timings.plan_s, timings.codebook_s, timings.convs_s, total, batch_size, timings.distinct_share],
        np.float32,
    )
