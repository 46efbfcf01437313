"""The door of the server: HTTP, gRPC and live painting before Triton."""
