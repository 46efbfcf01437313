"""Content negotiation (RFC 9110, section 12.5.1): which of the offered types a client likes best."""

from __future__ import annotations

from collections.abc import Sequence


def best(accept: str, offered: Sequence[str]) -> str | None:
    """The type of `offered` that the header Accept likes best, the first of equals; None where it accepts none.

    An empty header accepts everything. A range that cannot be read counts as absent.
    """
    if not accept.strip():
        return offered[0]
    ranges = [found for part in accept.split(",") if (found := _range(part)) is not None]
    weighed = [(_quality(kind, ranges), -i, kind) for i, kind in enumerate(offered)]
    quality, _, kind = max(weighed)
    return kind if quality > 0 else None


def _range(text: str) -> tuple[str, float] | None:
    kind, *options = (part.strip().lower() for part in text.split(";"))
    if kind.count("/") != 1:
        return None
    quality = 1.0
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return (kind, quality) if 0 <= quality <= 1 else None


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality that the most specific range gives."""
    main = kind.partition("/")[0]
    for wanted in (kind, f"{main}/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
