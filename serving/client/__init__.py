"""A client of a running server, over gRPC or HTTP."""

from serving.client.client import Client, EncodedResult, ModelInfo, RequestTimings, Result, ServerError

__all__ = ["Client", "EncodedResult", "ModelInfo", "RequestTimings", "Result", "ServerError"]
