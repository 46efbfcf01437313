"""A client of a running server, over gRPC or HTTP."""

from serving.client.client import Client, EncodedResult, Result, ServerError

__all__ = ["Client", "EncodedResult", "Result", "ServerError"]
