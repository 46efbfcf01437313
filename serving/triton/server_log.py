"""Triton's own log: which lines are warnings, and why a server ended."""

from __future__ import annotations

import re

_NOISE = ("CudaDriverHelper",)  # Triton logs this error on every machine without a GPU
_REASONS = 3


def has_lines(text: str) -> bool:
    """True once Triton logs by itself, so after it has read its options."""
    return re.search(r"^[IWE]\d{4} ", text, re.MULTILINE) is not None


def is_warning(line: str) -> bool:
    """True for a line of an error or a warning."""
    return re.match(r"[EW]\d{4} ", line) is not None


def last_errors(text: str) -> str:
    """The last errors of a log, each once, without the Python stack. Without errors, the last lines."""
    errors = re.findall(
        r'^(?:E\d{4} \S+ \d+ \S+\] "(.*)"|(?:error|exec): (.*)|Traceback.*\n(?: .*\n)*(.*))$', text, re.MULTILINE
    )
    messages = [next(filter(None, groups), "").replace("\\n", "\n").split("\n\nAt:")[0] for groups in errors]
    kept = [m for m in dict.fromkeys(messages) if m and not any(noise in m for noise in _NOISE)]
    return "; ".join(kept[-_REASONS:]) or "its log holds no error: " + " | ".join(text.splitlines()[-_REASONS:])
