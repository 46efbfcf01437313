"""The public doors of `spade serve`: HTTP, gRPC and metrics, before a Triton that only this machine can reach."""
