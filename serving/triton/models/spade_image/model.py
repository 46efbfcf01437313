"""Triton model `spade_image`: PNG label maps in, PNG, JPEG or WebP images out, through model `spade`."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from export.feeds import graph_inputs
from serving.protocol import STOPPING, ModelInfo, RequestTimings, pad_files
from serving.requests.batch import RequestTensors, check_request
from serving.requests.batcher import QueueFullError
from serving.requests.deadlines import CancelledError
from serving.requests.images import (
    Palette,
    as_palette,
    decode_maps,
    encode_images,
    read_colours,
    read_encoding,
    read_size,
)
from serving.requests.memory import return_large_memory
from serving.traces import TRACEPARENT, make_tracer
from serving.triton.cancelled import forget, mark_cancelled
from serving.triton.identity import IDENTIFY
from serving.triton.metrics import SPADE_IMAGE, Metrics
from serving.triton.protocol import ANSWER_BY, MARK_OUTCOME, TOKEN, read_outcome, read_parameters
from serving.triton.served_model import Call, ServedModel, UpstreamError, outcome_of
from serving.triton.tensors import make_tensor, read_inputs, read_output
from spade_core.config import GeneratorConfig
from spade_core.maps.colours import class_names, class_palette

Tensors = dict[str, npt.NDArray[Any]]

_FORWARDED = ("style", "seed")
_CANCEL_POLL_S = 0.2  # each look is a message to the server's process


class TritonPythonModel(ServedModel):
    """Decodes, asks `spade`, encodes. An instance works on many requests at once, and several instances run."""

    name = "spade_image"

    def initialize(self, args: dict[str, str]) -> None:
        """Start the threads. Triton reports the model ready when this returns."""
        return_large_memory()
        options = read_parameters(args["model_config"])
        self.tracer = make_tracer("spade-model")
        self.config = GeneratorConfig.from_dict(options["config"])
        self.plain_upstream: bool = options["plain_upstream"]
        self.max_pixels: int = options["max_pixels"]
        max_batch = json.loads(args["model_config"])["max_batch_size"]
        # A version that was published earlier may have no palette and no styles.
        self.palette: Palette = as_palette(options.get("palette", class_palette(self.config)))
        self.info = _info(self.config, self.palette, max_batch, self.max_pixels, options.get("styles", ""))
        self.metrics = Metrics(pb_utils, SPADE_IMAGE, {"model": self.name})
        # zlib and the image codecs release the interpreter lock.
        self.workers = ThreadPoolExecutor(max_workers=4)
        self.loop = asyncio.new_event_loop()
        # A call of `spade` holds a thread until the answer: enough threads for the running batch and the next one.
        self.loop.set_default_executor(ThreadPoolExecutor(2 * max_batch))
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        self.queue_size: int = options["queue_size"]
        self.unanswered = 0  # the loop's thread and the thread of `execute` change this number
        self.lock = threading.Lock()

    def finalize(self) -> None:
        """Triton calls this when the last request is answered."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.workers.shutdown()
        self.metrics.close()
        self.tracer.close()

    def accept(self, call: Call) -> None:
        """Start on a request. Batches form in `spade`. A request for output `info` alone asks for no image."""
        tensors = read_inputs(call.request)
        if list(call.request.requested_output_names()) == ["info"]:
            info = make_tensor("info", self.info.rows(len(tensors["label_map"])))
            call.answer(pb_utils.InferenceResponse([info]))
            return
        maps, timeout_s = len(tensors["label_map"]), call.request.timeout() / 1e6
        answer_by = time.monotonic() + timeout_s if timeout_s > 0 else None
        with self.lock:
            if self.unanswered and self.unanswered + maps > self.queue_size:
                raise QueueFullError(
                    f"[spade_image] expected at most {self.queue_size} label maps at once but {self.unanswered} are "
                    f"under way, and this request has {maps} more; try again later"
                )
            self.unanswered += maps
        asyncio.run_coroutine_threadsafe(self._serve(call, tensors, answer_by), self.loop)

    async def _serve(self, call: Call, tensors: Tensors, answer_by: float | None) -> None:
        response, failure = None, None
        try:
            response = await self._synthesize(call, tensors, answer_by)
        except Exception as error:  # noqa: BLE001 - every error is answered to the client
            failure = error
        with self.lock:
            self.unanswered -= len(tensors["label_map"])
        if failure is not None:
            self.refuse(call, failure)
            return
        self.count("ok")
        call.answer(response)

    async def _synthesize(self, call: Call, tensors: Tensors, answer_by: float | None) -> Any:
        if call.cancelled():
            raise CancelledError
        encoding = read_encoding(call.parameters)
        inputs = await self._run(call, "decode", self._decode, tensors, call.parameters)
        if call.cancelled():
            raise CancelledError
        drawn = await self._ask_spade(call, inputs, tensors, answer_by)
        files = await self._run(call, "encode", encode_images, drawn.pop("image"), encoding)
        padded, lengths = pad_files(files)
        outputs: Tensors = {"image": padded, "image_bytes": lengths, **drawn}
        return pb_utils.InferenceResponse([make_tensor(name, array) for name, array in outputs.items()])

    async def _ask_spade(self, call: Call, inputs: Tensors, tensors: Tensors, answer_by: float | None) -> Tensors:
        """Images, timings and the like by `spade`. Raises UpstreamError with the outcome that `spade` counts."""
        parameters = {key: value for key, value in call.parameters.items() if key == "sent_unix_us"}
        outputs, token = ["image"], secrets.token_hex(8)
        if not self.plain_upstream:
            inputs = inputs | {name: tensors[name] for name in _FORWARDED if name in tensors}
            parameters |= {MARK_OUTCOME: True, TOKEN: token}
            if call.span is not None:
                parameters[TRACEPARENT] = call.span.traceparent
            if answer_by is not None:
                parameters[ANSWER_BY] = int(answer_by * 1e6)
            outputs.append("timings")
            if call.parameters.get(IDENTIFY):
                parameters[IDENTIFY] = True
                outputs.append("identity")
        request = pb_utils.InferenceRequest(
            model_name="spade",
            inputs=[make_tensor(name, array) for name, array in inputs.items()],
            requested_output_names=outputs,
            parameters=parameters,
            timeout=call.request.timeout(),
        )
        watching = asyncio.ensure_future(_watch(call, token))
        try:
            response = await request.async_exec()
        finally:
            watching.cancel()
            forget(token)
        if response.has_error():
            raise _upstream_error(response.error())
        drawn = {name: read_output(response, name) for name in outputs}
        if self.plain_upstream:
            drawn["timings"] = RequestTimings.unknown().rows(len(drawn["image"]))
        return drawn

    async def _run(self, call: Call, part: str, function: Any, *arguments: Any) -> Any:
        """Call `function` on a worker thread. Metric and span of the part get the seconds."""
        began, began_ns = time.perf_counter(), time.time_ns()
        result = await asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)
        self.metrics.observe(f"spade_image_{part}_seconds", time.perf_counter() - began)
        call.part(part, began_ns, time.time_ns())
        return result

    def _decode(self, tensors: Tensors, parameters: dict[str, Any]) -> Tensors:
        colours = read_colours(parameters, self.config, self.palette)
        size = read_size(parameters, self.config, self.max_pixels)
        maps = decode_maps(tensors["label_map"], tensors.get("instance_map"), self.config, colours, size)
        if not self.plain_upstream:
            return maps
        # An engine file behind Triton's own backend neither checks labels nor knows seeds.
        sent = RequestTensors(**maps, style=tensors.get("style"), seed=tensors.get("seed"))
        inputs = check_request(sent, self.config, self.max_pixels)
        return graph_inputs(inputs.labels, inputs.instances, inputs.style)


async def _watch(call: Call, token: str) -> None:
    """Tell `spade` when the client goes."""
    while not call.cancelled():
        await asyncio.sleep(_CANCEL_POLL_S)
    mark_cancelled(token)


def _info(config: GeneratorConfig, palette: Palette, max_batch: int, max_pixels: int, styles: str) -> ModelInfo:
    return ModelInfo(
        preset=config.preset,
        classes=config.label_nc,
        dont_care=config.dont_care,
        height=config.height,
        width=config.width,
        instances=config.instance_edges,
        style=config.style,
        max_batch=max_batch,
        max_pixels=max_pixels,
        class_names=class_names(config),
        class_colours=palette,
        styles=styles,
    )


def _upstream_error(error: Any) -> UpstreamError:
    """What `spade` answered, with its outcome.

    Triton loses the code of an error on the way between models: every error arrives as INTERNAL. So `spade` marks the
    outcome in the message. Triton's own errors carry no mark, and are told apart by code and text.
    """
    outcome, message = read_outcome(error.message())
    if outcome is None:
        outcome = outcome_of(error.code())
        if any(text in message for text in _TRITON_REFUSALS):
            outcome = "refused"
    return UpstreamError(message, outcome)


# Triton's own queue before an engine file, and a server that is stopping.
_TRITON_REFUSALS = ("Exceeds maximum queue size", "Request timeout expired", *STOPPING)
