"""What Triton's models take, asked of Triton and kept for some seconds, since a published version may change it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.upstream import Upstream, UpstreamError
from serving.gateway.v2_checks import ITEM_BYTES, ModelSpec, TensorSpec, V2Error
from serving.protocol import MODELS, ModelInfo

_KEPT_S = 5.0


class Models:
    """The specifications of both models.

    Args:
        info: what is served now.
        max_bytes: most bytes of one input.
    """

    def __init__(self, upstream: Upstream, info: Callable[[], Awaitable[ModelInfo]], max_bytes: int) -> None:
        self._upstream, self._info, self._max_bytes = upstream, info, max_bytes
        self._kept: dict[str, tuple[float, ModelSpec]] = {}

    async def spec(self, name: str) -> ModelSpec:
        """The specification of a model, kept while Triton is away. Raises V2Error for another name, UpstreamError."""
        if name not in MODELS:
            raise V2Error(
                f"expected a model out of {', '.join(MODELS)} but got {name[:64]!r}", grpc.StatusCode.NOT_FOUND
            )
        asked, spec = self._kept.get(name, (float("-inf"), None))
        if spec is None or time.monotonic() - asked > _KEPT_S:
            now = time.monotonic()
            try:
                spec = await self._ask(name)
            except UpstreamError as error:
                # A request that comes while Triton is replaced is checked by what was known, then waits for the next.
                if spec is None or not error.process_died:
                    raise
            else:
                self._kept[name] = now, spec
        return spec

    async def _ask(self, name: str) -> ModelSpec:
        answer = await self._upstream.call("ModelMetadata", pb.ModelMetadataRequest(name=name).SerializeToString())
        metadata: Any = pb.ModelMetadataResponse.FromString(answer)
        info = await self._info()
        inputs = {
            tensor.name: TensorSpec(tensor.datatype, tuple(tensor.shape))
            for tensor in metadata.inputs
            if tensor.datatype in ITEM_BYTES
        }
        outputs = frozenset(tensor.name for tensor in metadata.outputs)
        return ModelSpec(name, inputs, outputs, info.max_batch, info.max_pixels, self._max_bytes)
