"""What every engine is: one method from checked label maps to images."""

from __future__ import annotations

from typing import Protocol

from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.types import Images, Instances, Labels, Style


class Engine(Protocol):
    """The interface of every engine (torch, cpu, tensorrt).

    Attributes:
        config: what the weights were made for.
        name: `torch`, `cpu` or `tensorrt`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        max_concurrent_calls: 2 where a device draws one batch while the host prepares the next, else 1.
    """

    config: GeneratorConfig
    name: str
    precision: str
    max_concurrent_calls: int

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3].

        `instances` is required exactly when `config.instance_edges`, `style` exactly when `config.style`.
        Labels are ids 0 .. label_nc - 1, or 255 where `config.dont_care`. Raises ValueError, naming the value.
        """
        ...
