"""Faults of Triton's versions that matter to us, and which versions may face a network by themselves."""

from __future__ import annotations

from dataclasses import dataclass

FOR_NETWORKS = (2, 70)
"""The first core (release 26.06) without a known vulnerability of score 9 or more, by NVIDIA's bulletins."""


@dataclass(frozen=True)
class KnownFault:
    """A fault, and the first core without it; None where no version is known to have mended it."""

    fault: str
    mended: tuple[int, int] | None


_CANCELLED = KnownFault("a cancelled gRPC call may end the server (server#7368)", (2, 53))

KNOWN = (
    KnownFault("shapes whose product wraps to 0 end the model's process", None),
    KnownFault("shapes with a zero are never answered, and keep a descriptor each", None),
    KnownFault("a model process that died or hangs is not noticed: requests hang, and the server stays ready", None),
    KnownFault("a gzip body takes a thousand times its size in memory, which is not given back", None),
    _CANCELLED,
    KnownFault("JSON nested 40,000 deep ends the server (fixed in 25.07)", (2, 59)),
    KnownFault("a body in chunks of one byte ends the server", (2, 69)),
    KnownFault("six vulnerabilities of score 9.0 or more (NVIDIA's bulletins to 26.06)", FOR_NETWORKS),
)


def core(version: str) -> tuple[int, int] | None:
    """`2.51.0` -> (2, 51); None for a version that is not known."""
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else None


def faults_of(version: str) -> list[str]:
    """The known faults of a Triton; of an unknown version all."""
    found = core(version)
    return [known.fault for known in KNOWN if known.mended is None or found is None or found < known.mended]


def may_cancel(version: str) -> bool:
    """Whether a call that was sent to a Triton may be cancelled."""
    return _CANCELLED.fault not in faults_of(version)


def may_face_networks(version: str) -> bool:
    """Whether Triton's own ports may be open beyond this machine without a warning."""
    found = core(version)
    return found is not None and found >= FOR_NETWORKS
