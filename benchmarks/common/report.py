"""The JSON report of a benchmark: what was measured, and on what machine."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spade_core.files.strict_json import json_text

_PACKAGES = (
    "spade-serve", "numpy", "torch", "onnxruntime", "openvino", "tensorrt-cu13", "tensorrt-rtx-cu13", "nvidia-pytriton",
    "tritonclient", "grpcio",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """The machine that the benchmark runs on: processor, cores, instruction sets, memory, versions, date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": named.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "isa": [flag for flag in wanted if flag in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "date": date.today().isoformat(),
    }


def versions() -> dict[str, str]:
    """The versions of the installed packages that figures depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, with the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text({"machine": machine()} | report, indent=1) + "\n")
