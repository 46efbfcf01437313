"""An engine turns checked label maps into images. Every engine has the one method below, and they must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from spade_core.config import GeneratorConfig

Labels = npt.NDArray[np.uint8]  # [N, H, W]
Instances = npt.NDArray[np.int32]  # [N, H, W]
Style = npt.NDArray[np.float32]  # [N, 256]
Images = npt.NDArray[np.uint8]  # [N, H, W, 3], RGB

ENGINES = ("auto", "torch", "cpu")  # of a checkpoint; `tensorrt` comes from an engine file
PRECISIONS = ("fp32", "bf16", "int8", "fp16")  # int8 on the cpu engine only, with AMX; fp16 on CUDA only


@dataclass
class Timings:
    """Where one call of `synthesize` spent its time. The engine adds to the fields; a fresh one starts at zero.

    Attributes:
        plan_s: label maps -> distinct patches and index, seconds.
        codebook_s: embed and codebook of all norms, seconds (0 in the dense form).
        convs_s: all the rest of the generator, seconds.
        distinct_share: distinct 5x5 patches / pixels over all levels, 0..1 (1 in the dense form).
        cached_maps: label maps whose plan and codebooks were at hand from an earlier call.
    """

    plan_s: float = 0.0
    codebook_s: float = 0.0
    convs_s: float = 0.0
    distinct_share: float = 0.0
    cached_maps: int = 0


class Engine(Protocol):
    """The interface of every engine (torch, cpu, tensorrt).

    Attributes:
        config: what the weights were made for.
        name: `torch`, `cpu` or `tensorrt`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        at_once: calls worth having at once: 2 where a device draws one batch while the host prepares the next.
    """

    config: GeneratorConfig
    name: str
    precision: str
    at_once: int

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3].

        `instances` is required exactly when `config.instance_edges`, `style` exactly when `config.style`.
        Labels are ids 0 .. label_nc - 1, or 255 where `config.dont_care`. Raises ValueError, naming the value.
        """
        ...
