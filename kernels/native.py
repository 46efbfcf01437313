"""The compiled module `kernels._native`, imported in one place, with one error where the module is missing."""

from __future__ import annotations

try:
    from kernels import _native as native
except ImportError as error:
    raise ImportError(
        "[kernels] expected the compiled module kernels._native but it is not built or not for this Python; "
        "build it with `pip install -e .` in the repository root (needs a C++20 compiler)"
    ) from error

__all__ = ["native"]
