"""Where one call of an engine spent its time."""

from __future__ import annotations

from dataclasses import dataclass


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
