"""Networks that the torch engine runs in float32 on one-hot maps: a SPADENet of MONAI, or a network of one's own."""

from __future__ import annotations

from serving.engines.reference import TorchEngine
from spade_core.drop_in.accelerate import accelerate
from spade_core.files.checkpoints import to_generator
from spade_core.files.weights import Weights
from spade_core.models.form import AnyGenerator


def network_of(weights: Weights) -> AnyGenerator:
    """The network of a checkpoint, accelerated."""
    return accelerate(to_generator(weights))


def one_hot_engine(network: AnyGenerator, device: str, threads: int | None) -> TorchEngine:
    """The torch engine on such a network."""
    return TorchEngine(network, "fp32", "dense", device, threads)
