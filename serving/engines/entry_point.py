"""The entry point of `spade serve --model`: a function that returns the model. Imports PyTorch with the model only."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spade_core.pytorch import require_torch

if TYPE_CHECKING:
    from spade_core.models.one_hot_model import OneHotModel


@dataclass(frozen=True)
class EntryPoint:
    """A function that returns a `OneHotModel`.

    Attributes:
        name: `module:function`.
        folder: where Python looks for the module first, absolute.
    """

    name: str
    folder: str

    def load(self) -> OneHotModel:
        """Import the module and call the function. Raises ValueError, naming what is wrong with the entry point."""
        require_torch("a model of one's own", "serve a checkpoint by --weights")
        module, colon, function = self.name.partition(":")
        if not colon or not module or not function.isidentifier():
            raise ValueError(
                f"[model] expected module:function but got {self.name!r}; name a function that returns a OneHotModel"
            )
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        try:
            found = getattr(importlib.import_module(module), function, None)
        except ImportError as error:
            raise ValueError(
                f"[model] expected a module {module!r} in '{self.folder}' or installed but got: {error}; start "
                "`spade serve` in the module's folder, or install it into this environment"
            ) from error
        if not callable(found):
            raise ValueError(
                f"[model] expected a function {function!r} in module {module!r} but got "
                f"{'none' if found is None else type(found).__name__}; name the function that returns the model"
            )
        from spade_core.models.one_hot_model import OneHotModel

        model = found()
        if not isinstance(model, OneHotModel):
            raise ValueError(
                f"[model] expected a OneHotModel of {self.name} but got {type(model).__name__}; return "
                "spade_core.OneHotModel(network, classes=.., height=.., width=..)"
            )
        return model.eval()
