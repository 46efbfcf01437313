"""The CUDA kernels at the full size of the COCO generator: time, share of the copy bandwidth, PyTorch and Triton."""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch

from benchmarks.gpu import triton_peers
from benchmarks.gpu.case import Case, Outputs, Planned
from benchmarks.gpu.cases import cases
from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.timing import REPEATS, Clock
from kernels.cuda.host.library import installed

BATCH = 8


def machine(setting: Setting) -> Report:
    """The GPU, versions, whether the kernels were built, and the bandwidth of a copy in device memory."""
    report: Report = {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "triton": triton_peers.version(), "kernels": installed().path.name,
    }  # fmt: skip
    if setting.rehearsed is not None:
        return report | {"gpu": "none: a rehearsal with emulated kernels"}
    properties = torch.cuda.get_device_properties(0)
    report |= {
        "gpu": torch.cuda.get_device_name(), "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
    }  # fmt: skip
    setting.save(report)
    return report | {"copy_gb_per_s": round(Clock(setting.device).copy_gb_per_s(1 << 30))}


def kernels(setting: Setting) -> Report:
    """Time all cases in float16: first ours, one row for each kernel and shape; then the peers, until time is up."""
    config = setting.config(256)
    batch = BATCH if setting.rehearsed is None else 1
    maps = setting.maps(config, batch)
    clock = Clock(setting.device, REPEATS if setting.rehearsed is None else 1)
    rows: list[Report] = []
    left_out: list[str] = []
    report: Report = {"rows": rows, "out_of_time": left_out}
    made: list[tuple[Report, Case]] = []
    for planned in cases(config, maps, setting.device, batch, dtypes=(torch.float16,)):
        if setting.time_is_up:
            left_out.append(f"{planned.name} {planned.shape}")
            continue
        row, case = measure(planned, clock)
        rows.append(row)
        made.append((row, case))
        setting.save(report)
    for name, peer_of in PEERS.items():  # last, since a peer's failure may end the process
        for row, case in made:
            peer = peer_of(case)
            if peer is None:
                continue
            if setting.time_is_up:
                left_out.append(f"{name} of {row['kernel']} {row['shape']}")
                continue
            row |= peer_row(name, peer, row["ms"], clock)
            setting.save(report)
    return report | {"passed": all(row["passed"] for row in rows)}


def measure(planned: Planned, clock: Clock) -> tuple[Report, Case]:
    """A row of our kernel: its error, its time, and the time of a copy of as many bytes."""
    case = planned.make()
    error = case.error()
    ms = clock.milliseconds(case.call)
    row: Report = {
        "kernel": planned.name, "shape": planned.shape, "dtype": planned.dtype, "bytes": case.bytes,
        "operations": case.operations, "error": error, "passed": error <= case.limit, "ms": ms,
        "gb_per_s": case.bytes / ms / 1e6, "copy_gb_per_s": clock.copy_gb_per_s(case.bytes),
    }  # fmt: skip
    return row | {"share": row["gb_per_s"] / row["copy_gb_per_s"]}, case


def _triton_checked(case: Case) -> Callable[[], object] | None:
    """The peer in Triton, which refuses to be timed if its result is wrong."""
    peer = case.triton
    if peer is None:
        return None
    checked = False

    def call() -> Outputs:
        nonlocal checked
        outputs = peer()
        if not checked:
            error = case.judge(outputs, case.expected())
            if error > case.limit:
                raise ValueError(f"its error {error:.3g} exceeds {case.limit:.3g}: not timed")
            checked = True
        return outputs

    return call


PEERS: dict[str, Callable[[Case], Callable[[], object] | None]] = {
    "eager": lambda case: case.eager,
    "triton": _triton_checked,
}


def peer_row(name: str, call: Callable[[], object], ms: float, clock: Clock) -> Report:
    """The columns of a peer: its time and the ratio to ours (`ms`), or why it has none."""
    try:
        peer_ms = clock.milliseconds(call)
    except Exception as error:  # noqa: BLE001 - no failure of a peer may cost the other rows
        words = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())  # one cell of the table
        return {f"{name}_error": words[:300]}
    return {f"{name}_ms": peer_ms, f"{name}_ratio": peer_ms / ms}
