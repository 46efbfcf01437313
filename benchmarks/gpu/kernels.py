"""The CUDA kernels at the full size of the COCO generator: time, share of the copy bandwidth, PyTorch and Triton."""

from __future__ import annotations

import platform
import time

import torch

from benchmarks.common.maps import read_maps
from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import Case, Outputs
from benchmarks.gpu.cases import cases
from benchmarks.gpu.checks import largest_error
from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.timing import copy_gb_per_s, milliseconds
from kernels.cuda.host.library import CudaError, installed
from spade_core.config import preset

BATCH = 8


def machine(setting: Setting) -> Report:
    """The GPU, versions, whether the kernels were built, and the bandwidth of a copy in device memory."""
    report: Report = {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "triton": triton_peers.version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }  # fmt: skip
    try:
        report["kernels"] = str(installed().path.name)
    except CudaError as error:
        report["kernels"] = str(error)
        if not setting.dry_run:
            raise
    if setting.dry_run:
        return report
    properties = torch.cuda.get_device_properties(0)
    return report | {
        "multiprocessors": properties.multi_processor_count, "memory_bytes": properties.total_memory,
        "copy_gb_per_s": round(copy_gb_per_s(1 << 30)),
    }  # fmt: skip


def kernels(setting: Setting) -> Report:
    """Time all cases: one row for each kernel, shape and dtype."""
    config = preset("coco")
    batch = 1 if setting.dry_run else BATCH
    device = torch.device("meta" if setting.dry_run else "cuda")
    maps = read_maps(config, setting.labels, count=batch)
    rows: list[Report] = []
    left_out = []
    for case in cases(config, maps, device, batch):
        row: Report = {"kernel": case.name, "shape": case.shape, "dtype": case.dtype, "bytes": case.bytes,
                       "operations": case.operations}  # fmt: skip
        if setting.dry_run:
            rows.append(row)
            continue
        if time.monotonic() > setting.ends:
            left_out.append(f"{case.name} {case.shape} {case.dtype}")
            continue
        expected = case.expected()
        row["error"] = largest_error(case.call(), expected)
        row["ms"] = milliseconds(case.call)
        row["gb_per_s"] = case.bytes / row["ms"] / 1e6
        row["copy_gb_per_s"] = copy_gb_per_s(case.bytes)
        row["share"] = row["gb_per_s"] / row["copy_gb_per_s"]
        row["eager_ms"] = milliseconds(case.eager) if case.eager else None
        row["ratio"] = row["eager_ms"] / row["ms"] if case.eager else None
        row["passed"] = row["error"] <= case.limit
        rows.append(row)
        setting.save({"rows": rows, "out_of_time": left_out})  # before the peer runs: its failure may end the process
        row |= triton_peer(case, expected, row["ms"])
        setting.save({"rows": rows, "out_of_time": left_out})
    if setting.dry_run:
        return {"would_time": rows}
    return {"rows": rows, "out_of_time": left_out, "passed": all(row["passed"] for row in rows)}


def triton_peer(case: Case, expected: Outputs, ms: float) -> Report:
    """The columns of the peer in Triton: its time and the ratio to ours (`ms`), or its failure; {} without a peer."""
    if case.triton is None:
        return {}
    try:
        off = largest_error(case.triton(), expected)
        if off > case.limit:
            return {"triton_error": f"its error {off:.3g} exceeds {case.limit:.3g}: not timed"}
        triton_ms = milliseconds(case.triton)
    except Exception as error:  # noqa: BLE001 - no failure of a peer's compiler may cost the other rows
        words = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())  # one cell of the table
        return {"triton_error": words[:300]}
    return {"triton_ms": triton_ms, "triton_ratio": triton_ms / ms}
