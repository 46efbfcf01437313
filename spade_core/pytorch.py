"""PyTorch, which an installation that only serves may lack: whether it is there, and the error where it is not."""

from __future__ import annotations

import importlib.util

INSTALL = "install it: `pip install -e '.[torch]'` in the checkout of SPADE Serve"


class NoTorchError(RuntimeError):
    """Something needs PyTorch, which this Python lacks; the message says what, and what works without."""


def has_torch() -> bool:
    """Whether PyTorch is installed. PyTorch is not imported."""
    return importlib.util.find_spec("torch") is not None


def require_torch(what: str, instead: str) -> None:
    """Raise NoTorchError where PyTorch is not installed.

    Args:
        what: what needs PyTorch: a noun.
        instead: what works without PyTorch: an imperative.
    """
    if not has_torch():
        raise NoTorchError(
            f"[pytorch] expected PyTorch, which {what} needs, but this Python has none; {instead}, or {INSTALL}"
        )
