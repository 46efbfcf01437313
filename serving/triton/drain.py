"""Let a server answer what it has accepted, and refuse what comes later.

Triton's own end on SIGTERM does neither: it first waits for every HTTP connection to close, idle ones too, goes on to
accept requests over them, and then has no time left for the models. Unloading a model refuses new requests at once,
and is done when the last accepted one is answered.
"""

from __future__ import annotations

import contextlib
import time

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from serving.protocol import MODELS
from serving.triton.announcement import ADMIN_HEADER

_POLL_S = 0.05
_CALL_S = 5.0


def drain(address: str, secret: str, limit_s: float) -> bool:
    """Unload the models of the server at `address` (HOST:PORT of gRPC). True once all accepted requests are answered.

    False where that takes longer than `limit_s`, or the server does not answer.
    """
    end = time.monotonic() + limit_s
    headers = {f"triton-grpc-protocol-{ADMIN_HEADER}": secret}
    with contextlib.closing(triton_grpc.InferenceServerClient(address)) as client:
        try:
            for model in reversed(MODELS):  # `spade_image` asks `spade`
                client.unload_model(model, headers=headers, client_timeout=_CALL_S)
                while _loaded(client, model, headers):
                    if time.monotonic() > end:
                        return False
                    time.sleep(_POLL_S)
        except InferenceServerException:
            return False
    return True


def _loaded(client: triton_grpc.InferenceServerClient, model: str, headers: dict[str, str]) -> bool:
    index = client.get_model_repository_index(headers=headers, client_timeout=_CALL_S)
    return any(entry.name == model and entry.state not in ("", "UNAVAILABLE") for entry in index.models)
