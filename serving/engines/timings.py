"""Where one call of an engine spends its time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timings:
    """Where one call of an engine spends its time. An engine adds to the fields; a fresh record starts at zero.

    Attributes:
        plan_s: seconds from label maps to distinct patches and index.
        codebook_s: seconds of embed and codebook over all norms; 0 in the dense form.
        convs_s: seconds of the rest of the generator.
        distinct_share: distinct 5x5 patches per pixel over all levels of the last batch, 0..1; 1 in the dense form.
        cached_maps: label maps whose plan and codebooks were kept from an earlier call.
        redrawn_maps: label maps of which a session drew only what had changed.
        session_bytes: bytes of the maps between the convs that sessions keep, after the call; None where none was used.
    """

    plan_s: float = 0.0
    codebook_s: float = 0.0
    convs_s: float = 0.0
    distinct_share: float = 0.0
    cached_maps: int = 0
    redrawn_maps: int = 0
    session_bytes: int | None = None

    @property
    def total_s(self) -> float:
        """Seconds of all parts."""
        return self.plan_s + self.codebook_s + self.convs_s
