"""The entry point of `spade serve --model`: a function that returns the model. Imports PyTorch with the model only."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spade_core.config import GeneratorConfig
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

    def config(self) -> GeneratorConfig:
        """The configuration of the model. A process of its own loads the model, so that this one holds no copy.

        Raises ValueError as `load` does, and where the function fails; its traceback is on stderr.
        """
        require_torch("a model of one's own", "serve a checkpoint by --weights")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "config.json")  # whatever the module prints, the file holds the configuration alone
            done = subprocess.run(
                [sys.executable, "-m", "serving.engines.entry_point", self.name, self.folder, str(out)], check=False
            )
            if done.returncode != 0 or not out.is_file():
                raise ValueError(
                    f"[model] expected a OneHotModel of {self.name} but its process ended with status "
                    f"{done.returncode}; mend what stands above"
                )
            found = json.loads(out.read_text())
        if "error" in found:
            raise ValueError(found["error"])
        return GeneratorConfig.from_dict(found["config"])

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


def _describe(name: str, folder: str, out: str) -> None:
    """Write the configuration of a model, or what is wrong with its entry point, as JSON."""
    try:
        found: dict[str, object] = {"config": EntryPoint(name, folder).load().config.to_dict()}
    except ValueError as error:
        found = {"error": str(error)}
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    _describe(*sys.argv[1:])
