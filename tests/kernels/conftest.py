"""Fixtures of the kernel tests."""

from cuda_emulated import emulated

__all__ = ["emulated"]
