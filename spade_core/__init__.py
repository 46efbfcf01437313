"""The mathematics of SPADE in PyTorch and NumPy. Knows no server and no file format but its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spade_core.drop_in.accelerate import accelerate, label_map, restore
    from spade_core.models.one_hot_model import OneHotModel

__all__ = ["OneHotModel", "accelerate", "label_map", "restore"]


def __getattr__(name: str) -> Any:
    """PyTorch is imported only when one of the names of `__all__` is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "OneHotModel":
        from spade_core.models import one_hot_model

        return one_hot_model.OneHotModel
    from spade_core.drop_in import accelerate as module

    return getattr(module, name)
