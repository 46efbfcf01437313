"""The report of the GPU benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.setting import Report

_COLUMNS: dict[str, Sequence[str]] = {
    "checks": ("kernel", "shape", "dtype", "error", "limit", "passed"),
    "kernels": ("kernel", "shape", "dtype", "ms", "gb_per_s", "copy_gb_per_s", "share", "eager_ms", "eager_ratio",
                "eager_error", "triton_ms", "triton_ratio", "triton_error", "error"),
    "model": ("engine", "batch", "seconds_median", "images_per_s", "max_error", "psnr_db"),
    "compile": ("engine", "batch", "seconds_median", "images_per_s", "max_error", "psnr_db"),
    "training": ("form", "batch", "ms", "cosine_to_float32"),
}  # fmt: skip


def markdown(report: Report) -> str:
    """One section for each step of the report: its figures as a list, its rows as a table."""
    lines = [f"# GPU benchmark, {report['date']}", ""]
    if report["rehearsal"]:
        lines += ["A rehearsal on the CPU with emulated kernels: no figure here is of a GPU.", ""]
    for name in ("build", "machine", "checks", "model", "kernels", "compile", "sanitizer", "training"):
        if name in report:
            lines += [f"## {name}", "", *_section(name, report[name]), ""]
    return "\n".join(lines)


def _section(name: str, step: Report) -> list[str]:
    rows = step.get("rows", [])
    lines = [f"- {key}: {_text(value)}" for key, value in step.items() if key != "rows"]
    if not rows:
        return lines
    columns = _COLUMNS[name]
    table = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    table += [f"| {' | '.join(_text(row.get(column)) for column in columns)} |" for row in rows]
    return [*lines, "", *table]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(str, value))[:400]}" if value else "none"
    return str(value)
