"""Every CUDA kernel on the GPU against its specification in float64."""

from __future__ import annotations

import itertools

from benchmarks.gpu.cases import cases
from benchmarks.gpu.setting import Report, Setting

SUBSET = 12  # cases that the sanitizer runs: the plan, and those of the first modulation


def checks(setting: Setting, most: int | None = None) -> Report:
    """Check the first `most` cases at 64x64 on real patches, in every dtype; the report grows a row at a time."""
    config = setting.config(64)
    maps = setting.maps(config, 3 if setting.rehearsed is None else 1)
    rows: list[Report] = []
    left_out: list[str] = []
    report: Report = {"rows": rows, "out_of_time": left_out}
    for planned in itertools.islice(cases(config, maps, setting.device, batch=min(3, len(maps.symbols))), most):
        if setting.time_is_up:
            left_out.append(f"{planned.name} {planned.shape} {planned.dtype}")
            continue
        case = planned.make()
        error = case.error()
        rows.append({"kernel": planned.name, "shape": planned.shape, "dtype": planned.dtype, "error": error,
                     "limit": case.limit, "passed": error <= case.limit})  # fmt: skip
        setting.save(report | {"passed": all(row["passed"] for row in rows)})
    return report | {"passed": all(row["passed"] for row in rows)}


def subset(setting: Setting) -> Report:
    """The first cases alone."""
    return checks(setting, SUBSET)
