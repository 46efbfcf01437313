"""Triton model `spade_image`: PNG label maps in, PNG, JPEG or WebP images out, through model `spade`."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from export.feeds import graph_inputs
from serving.requests.batch import RequestTensors, check_request
from serving.requests.images import decode_maps, encode_images, pad_files, read_encoding
from serving.triton.metrics import SPADE_IMAGE, Metrics
from serving.triton.protocol import UNKNOWN, RequestTimings, read_parameters
from serving.triton.tensors import error_response, make_tensor, read_inputs, read_output, send, silence_capsules
from spade_core.config import GeneratorConfig

log = logging.getLogger("spade_image")

_FORWARDED = ("style", "seed")


class TritonPythonModel:
    """Decodes, asks `spade`, encodes. Many requests run at once, and several instances of this model."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        silence_capsules()
        parameters = read_parameters(args["model_config"])
        self.config = GeneratorConfig.from_dict(parameters["config"])
        self.plain_upstream: bool = parameters["plain_upstream"]
        self.max_pixels: int = parameters["max_pixels"]
        self.outputs = ["image"] if self.plain_upstream else ["image", "timings"]
        self.metrics = Metrics(pb_utils, SPADE_IMAGE, {"model": "spade_image"})
        # zlib and the image codecs let go of the interpreter lock.
        self.workers = ThreadPoolExecutor(max_workers=4)
        self.loop = asyncio.new_event_loop()
        # A call of `spade` holds a thread until it is answered: enough for the batch that runs and the one that forms.
        self.loop.set_default_executor(ThreadPoolExecutor(2 * json.loads(args["model_config"])["max_batch_size"]))
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        self.queue_size: int = parameters["queue_size"]
        self.unanswered = 0  # changed by the loop's thread and by that of `execute`
        self.lock = threading.Lock()

    def execute(self, requests: Sequence[Any]) -> None:
        """Starts on the requests; each is answered through its response sender. Batches form in `spade`."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._start(request, sender)
            except Exception as error:  # noqa: BLE001 - one request's failure must not reach the others
                send(sender, self._refuse(error))

    def finalize(self) -> None:
        """Triton calls this when the last request is answered."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.workers.shutdown()
        self.metrics.close()

    def _start(self, request: Any, sender: Any) -> None:
        tensors, parameters = read_inputs(request), json.loads(request.parameters() or "{}")
        with self.lock:
            if self.unanswered >= self.queue_size:
                text = (
                    f"[spade_image] expected at most {self.queue_size} requests at once but got more; try again later"
                )
                raise UpstreamError(text, pb_utils.TritonError.UNAVAILABLE)
            self.unanswered += 1
        asyncio.run_coroutine_threadsafe(self._serve(sender, tensors, parameters), self.loop)

    async def _serve(self, sender: Any, tensors: dict[str, Any], parameters: dict[str, Any]) -> None:
        try:
            response = await self._synthesize(sender, tensors, parameters)
            self.metrics.increment("spade_image_requests_total.ok")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            response = self._refuse(error)
        with self.lock:
            self.unanswered -= 1
        send(sender, response)

    def _refuse(self, error: Exception) -> Any:
        if isinstance(error, UpstreamError):
            self.metrics.increment(f"spade_image_requests_total.{_outcome(error.code)}")
            return error_response(str(error), error.code)
        if isinstance(error, ValueError):
            self.metrics.increment("spade_image_requests_total.invalid")
            return error_response(str(error), pb_utils.TritonError.INVALID_ARG)
        self.metrics.increment("spade_image_requests_total.failed")
        reference = secrets.token_hex(4)
        log.error("internal error %s", reference, exc_info=error)
        text = f"[spade_image] internal error {reference}; the server's log has the details"
        return error_response(text, pb_utils.TritonError.INTERNAL)

    async def _synthesize(self, sender: Any, tensors: dict[str, Any], parameters: dict[str, Any]) -> Any:
        if sender.is_cancelled():
            raise UpstreamError("[spade_image] the client cancelled this request", pb_utils.TritonError.CANCELLED)
        encoding = read_encoding(parameters)
        inputs = await self._run("spade_image_decode_seconds", self._decode, tensors)
        if not self.plain_upstream:
            inputs += [make_tensor(name, tensors[name]) for name in _FORWARDED if name in tensors]
        sent = {key: value for key, value in parameters.items() if key == "sent_unix_us"}
        upstream = pb_utils.InferenceRequest(
            model_name="spade", inputs=inputs, requested_output_names=self.outputs, parameters=sent
        )
        response = await upstream.async_exec()
        if response.has_error():
            raise UpstreamError(response.error().message(), response.error().code())
        images = read_output(response, "image")
        timings = self._no_timings(images) if self.plain_upstream else read_output(response, "timings")
        files = await self._run("spade_image_encode_seconds", encode_images, images, encoding)
        padded, lengths = pad_files(files)
        outputs: dict[str, npt.NDArray[Any]] = {"image": padded, "image_bytes": lengths, "timings": timings}
        return pb_utils.InferenceResponse([make_tensor(name, array) for name, array in outputs.items()])

    async def _run(self, metric: str, function: Any, *arguments: Any) -> Any:
        """`function` on a worker thread, its seconds observed by `metric`."""
        began = time.perf_counter()
        result = await asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)
        self.metrics.observe(metric, time.perf_counter() - began)
        return result

    def _decode(self, tensors: dict[str, Any]) -> list[Any]:
        maps = decode_maps(tensors["label_map"], tensors.get("instance_map"), self.config)
        if self.plain_upstream:
            maps = self._checked(maps, tensors)
        return [make_tensor(name, array) for name, array in maps.items()]

    def _checked(self, maps: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
        """What an engine file takes: it checks nothing and knows no seed, so that is done here."""
        sent = RequestTensors(**maps, style=tensors.get("style"), seed=tensors.get("seed"))
        inputs = check_request(sent, self.config, self.max_pixels)
        return graph_inputs(inputs.labels, inputs.instances, inputs.style)

    def _no_timings(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.full((len(images), len(fields(RequestTimings))), UNKNOWN, np.float32)


class UpstreamError(RuntimeError):
    """What `spade` answered, or would have: passed on with its code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _outcome(code: int) -> str:
    outcomes = {
        pb_utils.TritonError.INVALID_ARG: "invalid",
        pb_utils.TritonError.UNAVAILABLE: "refused",
        pb_utils.TritonError.CANCELLED: "cancelled",
    }
    return outcomes.get(code, "failed")
