"""Triton model `spade`: label maps [H, W] as tensors in, images [H, W, 3] as tensors out. See docs/serving.md."""

from __future__ import annotations

import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.engines.choose import load_engine
from serving.engines.contract import Engine
from serving.engines.entry_point import EntryPoint
from serving.engines.timings import Timings
from serving.protocol import UNKNOWN, RequestTimings
from serving.requests.batch import Done, RequestError, RequestTensors, check_request
from serving.requests.batcher import Batcher, Request
from serving.requests.deadlines import Deadline, wait_limit_s
from serving.requests.photo_styles import PhotoStyles
from serving.requests.sessions import check_session
from serving.traces import Attributes, make_tracer
from serving.triton.cancelled import read_token, was_cancelled
from serving.triton.identity import IDENTIFY, Identity
from serving.triton.metrics import SPADE, Metrics
from serving.triton.protocol import ANSWER_BY, TOKEN, check_package, read_parameters
from serving.triton.restarts import Restarts
from serving.triton.served_model import Call, ServedModel
from serving.triton.tensors import make_tensor, read_inputs
from spade_core.config import STYLE_DIM
from spade_core.files.manifest import sha256, verify_manifest

log = logging.getLogger("spade")


class TritonPythonModel(ServedModel):
    """One engine. Triton calls `execute` as requests arrive; batches form in the queue before the engine."""

    name = "spade"

    def initialize(self, args: dict[str, str]) -> None:
        """Load and warm up the engine. Triton reports the model ready when this returns."""
        options = read_parameters(args["model_config"])
        check_package(options)
        self.tracer = make_tracer("spade-model")
        version = Path(args["model_repository"], args["model_version"])
        if options["published"]:
            verify_manifest(version)  # raises for an incomplete version, so that the version before stays live
        # Published weights lie here, other paths are absolute.
        weights = None if options["weights"] is None else version / options["weights"]
        network = None if options.get("entry") is None else EntryPoint(**options["entry"]).load()
        hashed = "seeded" if weights is None else checked_sha256(weights, options.get("sha256"))
        hashed = hashed if network is None else network.sha256()
        self.max_pixels: int = options["max_pixels"]
        self.engine = load_engine(
            options["engine"],
            weights,
            options["preset"],
            options["precision"],
            options["threads"],
            options.get("session_mib", 1024) << 20,  # a version that was published earlier may not say
            network,
        )
        config = self.engine.config
        self.identity = identity_of(self.engine, hashed)
        labels = {
            "model": self.name,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "preset": config.preset,
        }
        self.metrics = Metrics(pb_utils, SPADE, labels, {"spade_weights_info": {"sha256": hashed}})
        self.metrics.set("spade_weights_info", 1)
        self.restarts = Restarts(pb_utils, str(os.getpid()) if options["published"] else None)
        log.info("weights %s, sha256 %s", weights or f"of preset {config.preset}", hashed)
        size = (1, config.height, config.width)
        self.engine.synthesize(
            np.zeros(size, np.uint8),
            np.zeros(size, np.int32) if config.instance_edges else None,
            np.zeros((1, STYLE_DIM), np.float32) if config.style else None,
        )
        self.photo_styles = PhotoStyles(weights, options["preset"]) if network is None else None
        self.photo_worker = ThreadPoolExecutor(1, "photos")
        self.timeout_s: float = options["queue_timeout_s"]
        self.batcher = Batcher(
            self.engine,
            max_batch=json.loads(args["model_config"])["max_batch_size"],
            queue_size=options["queue_size"],
            delay_s=options["queue_delay_us"] / 1e6,
            on_batch=self._count_batch,
            on_queue=lambda waiting: self.metrics.set("spade_waiting_requests", waiting),
        )

    def finalize(self) -> None:
        """Triton calls this when the last request to this version is answered."""
        self.photo_worker.shutdown()
        self.batcher.close()
        self.metrics.close()
        self.tracer.close()
        self.restarts.close()

    def accept(self, call: Call) -> None:
        """Check a request and queue it. A request for output `identity` alone asks for no image."""
        wanted = list(call.request.requested_output_names())
        if wanted == ["identity"]:
            call.answer(pb_utils.InferenceResponse([make_tensor("identity", self.identity.rows(1))]))
            return
        if wanted == ["style"]:
            self.photo_worker.submit(self._answer_style, call, read_inputs(call.request).get("photo"))
            return
        sent = sent_seconds(call.parameters)
        inputs = check_request(RequestTensors(**read_inputs(call.request)), self.engine.config, self.max_pixels)
        session = check_session(call.parameters.get("session"), len(inputs))
        came_ns = time.time_ns()

        def answer(result: Done | Exception, began: float) -> None:
            if isinstance(result, Exception):
                self.refuse(call, result)
            else:
                record_parts(call, came_ns, began, result.timings)
                call.answer(self._response(call, result, sent, began), attributes=self._attributes(result))

        self.batcher.submit(Request(inputs, answer, self._deadline(call), session))

    def _attributes(self, result: Done) -> Attributes:
        """What the span of a request says about its batch."""
        identity, spent = self.identity, result.timings
        return {
            "spade.engine": identity.engine,
            "spade.precision": identity.precision,
            "spade.batch_size": result.batch_size,
            "spade.cached_maps": spent.cached_maps,
            "spade.distinct_share": spent.distinct_share,
        }

    def _answer_style(self, call: Call, photos: Any) -> None:
        """The style of each photo, made beside the engine."""
        try:
            if self.photo_styles is None:
                raise RequestError("[spade] expected style or seed but got photo; a model of --model has no encoder")
            if photos is None:
                raise RequestError("[spade] expected photo with output style but got none")
            # The files of several photos are padded with zeros, which no decoder minds.
            styles = np.stack([self.photo_styles.style(photo.tobytes()) for photo in photos])
        except Exception as error:  # noqa: BLE001 - every error is answered to the client
            self.refuse(call, error)
        else:
            call.answer(pb_utils.InferenceResponse([make_tensor("style", styles)]))

    def _deadline(self, call: Call) -> Deadline:
        """When the request is dropped: by its own time, by the time that `spade_image` gives, or by its client."""
        allowed_s = limit_s = wait_limit_s(self.timeout_s, call.request.timeout() / 1e6)
        answer_by, token = call.parameters.get(ANSWER_BY), read_token(call.parameters.get(TOKEN))
        if isinstance(answer_by, int):
            limit_s = min(limit_s, max(0.0, answer_by / 1e6 - time.monotonic()))

        def cancelled() -> bool:
            return call.cancelled() or (token is not None and was_cancelled(token))

        return Deadline(limit_s, cancelled, allowed_s)

    def _count_batch(self, timings: Timings, size: int) -> None:
        self.metrics.observe("spade_batch_size", size)
        self.metrics.increment("spade_cached_maps_total", timings.cached_maps)
        self.metrics.increment("spade_redrawn_maps_total", timings.redrawn_maps)
        if timings.session_bytes is not None:
            self.metrics.set("spade_session_bytes", timings.session_bytes)
        self.metrics.observe("spade_plan_seconds", timings.plan_s)
        self.metrics.observe("spade_codebook_seconds", timings.codebook_s)
        self.metrics.observe("spade_convs_seconds", timings.convs_s)
        self.metrics.observe("spade_distinct_patch_ratio", timings.distinct_share)

    def _response(self, call: Call, result: Done, sent: float | None, began: float) -> Any:
        """The response to a request: sent at `sent` (seconds since 1970), taken at `began` (`time.perf_counter`)."""
        total = time.perf_counter() - began
        queued = None if sent is None else max(0.0, time.time() - total - sent)
        self.count("ok")
        self.metrics.increment("spade_images_total", len(result.images))
        self.metrics.observe("spade_request_seconds", total)
        if queued is not None:
            self.metrics.observe("spade_queue_seconds", queued)
        queue_s, spent = UNKNOWN if queued is None else queued, result.timings
        timings = RequestTimings(
            queue_s, spent.plan_s, spent.codebook_s, spent.convs_s, total, result.batch_size, spent.distinct_share
        )
        tensors = [make_tensor("image", result.images), make_tensor("timings", timings.rows(len(result.images)))]
        if call.parameters.get(IDENTIFY):
            tensors.append(make_tensor("identity", self.identity.rows(len(result.images))))
        return pb_utils.InferenceResponse(tensors)


def record_parts(call: Call, came_ns: int, began: float, spent: Timings) -> None:
    """The parts of a request's span: it came at `came_ns` and its batch began at `began` (`time.perf_counter`).

    A batch does its codebooks and convs level by level; each part is all of its kind, one after another.
    """
    at_ns = time.time_ns() - round((time.perf_counter() - began) * 1e9)
    call.part("queue", came_ns, at_ns)
    for name, seconds in (("plan", spent.plan_s), ("codebook", spent.codebook_s), ("convs", spent.convs_s)):
        end_ns = at_ns + round(seconds * 1e9)
        call.part(name, at_ns, end_ns)
        at_ns = end_ns


def checked_sha256(weights: Path, expected: str | None) -> str:
    """The hash of a file of weights. Raises ValueError where another one is expected: one flipped bit changes it."""
    found = sha256(weights)
    if expected is not None and found != expected:
        raise ValueError(
            f"[serve] expected weights of sha256 {expected} but got {found} in '{weights}'; the file is damaged or "
            "another one: fetch it again, or give its own --sha256"
        )
    return found


def identity_of(engine: Engine, weights: str) -> Identity:
    """What draws: the engine, and the hash of its weights."""
    return Identity(
        preset=engine.config.preset,
        engine=engine.name,
        precision=engine.precision,
        isa=str(getattr(engine, "isa", "")),
        weights=weights,
        exact=engine.name == "cpu",
    )


def sent_seconds(parameters: dict[str, Any]) -> float | None:
    """When the client sent a request (parameter `sent_unix_us`), seconds since 1970; None without the parameter.

    Raises RequestError where the parameter is not an integer.
    """
    sent: int | None = parameters.get("sent_unix_us")
    if sent is None:
        return None
    if isinstance(sent, bool) or not isinstance(sent, int):
        raise RequestError(f"[spade] expected sent_unix_us as an integer, microseconds since 1970, but got {sent!r}")
    return sent / 1e6
