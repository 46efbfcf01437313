"""Whether Triton's own ports may be open beyond this machine."""

from __future__ import annotations

from serving.triton.known_faults import FOR_NETWORKS, faults_of, may_face_networks

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ExposureError(ValueError):
    """Ports of a vulnerable Triton that others could reach; the message says what they could do."""


def check_exposure(host: str, version: str, consent: bool) -> None:
    """Raises ExposureError for a known-vulnerable or unknown `version` on a `host` beyond loopback without consent."""
    if host in _LOOPBACK or consent or may_face_networks(version):
        return
    raise ExposureError(
        f"[serve] expected Triton {FOR_NETWORKS[0]}.{FOR_NETWORKS[1]} (release 26.06) or later to open its own ports "
        f"on {host} but got {version or 'an unknown version'}, of which others can make use: "
        f"{'; '.join(faults_of(version))}; leave out --direct, whose gateway checks every request first, or say "
        "--vulnerable-triton"
    )
