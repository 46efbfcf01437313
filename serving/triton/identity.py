"""What draws the images of a served model: output `identity` of both models, for a request that asks for it.

Two requests of equal maps and styles get images of equal bits where their identities are equal and `exact`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

IDENTIFY = "identify"
"""A request parameter (true) of both models: answer output `identity` too. The gateway sends it."""


@dataclass(frozen=True)
class Identity:
    """What draws.

    Attributes:
        preset: the configuration's preset.
        engine: `torch`, `cpu` or `tensorrt`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        isa: instruction set of the kernels, or the device; the sums of another may differ in their last bits.
        weights: sha256 of the weights' file, `seeded` for untrained ones, or empty where it is not known.
        exact: the bits of an image do not depend on its batch.
    """

    preset: str
    engine: str
    precision: str
    isa: str
    weights: str
    exact: bool

    def rows(self, count: int) -> npt.NDArray[np.uint8]:
        """The output tensor of a request of `count` maps, uint8 [N, bytes]."""
        return np.tile(np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8), (count, 1))


def read_identity(answer: Any) -> Identity:
    """The identity in an answer, as `as_numpy` gives its tensors."""
    values = json.loads(answer.as_numpy("identity")[0].tobytes())
    return Identity(**{field.name: values[field.name] for field in fields(Identity)})
