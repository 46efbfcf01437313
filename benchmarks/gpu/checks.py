"""Every CUDA kernel on the GPU against its specification in float64."""

from __future__ import annotations

import dataclasses

import torch

from benchmarks.common.maps import read_maps
from benchmarks.gpu.case import Case, Outputs
from benchmarks.gpu.cases import cases
from benchmarks.gpu.setting import Report, Setting
from spade_core.config import preset


def error_of(case: Case) -> float:
    """The largest error of the kernel's outputs; see `largest_error`."""
    return largest_error(case.call(), case.expected())


def largest_error(outputs: Outputs, expected: Outputs) -> float:
    """The largest difference, relative to the largest value of each output; infinite if a difference is not finite."""
    worst = 0.0
    for got, wanted in zip(outputs, expected, strict=True):
        exact = wanted.double()
        error = (got.double() - exact).abs().max() / exact.abs().max().clamp(min=1)
        worst = max(worst, float(error) if torch.isfinite(error) else float("inf"))
    return worst


def checks(setting: Setting) -> Report:
    """Check all cases at 64x64, with odd numbers of rows, real patches and every dtype."""
    small = dataclasses.replace(preset("coco"), height=64, width=64)
    device = torch.device("cpu" if setting.dry_run else "cuda")
    found = list(cases(small, read_maps(small, setting.labels, count=3), device, batch=3))
    if setting.dry_run:
        return {"would_check": [f"{case.name} {case.shape} {case.dtype}" for case in found]}
    rows = []
    for case in found:
        error = error_of(case)
        rows.append({"kernel": case.name, "shape": case.shape, "dtype": case.dtype, "error": error, "limit": case.limit,
                     "passed": error <= case.limit})  # fmt: skip
    torch.cuda.synchronize()
    return {"rows": rows, "passed": all(row["passed"] for row in rows)}
