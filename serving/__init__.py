"""Engines, the Triton models and their launcher, the client and the `spade` command."""
