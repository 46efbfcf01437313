"""Some of the checks under compute-sanitizer."""

from __future__ import annotations

import re
import shutil
import sys
import time

from benchmarks.gpu.process import run_group
from benchmarks.gpu.setting import Report, Setting

# memcheck knows the borders of allocations. PyTorch's allocator hands out parts of large ones, so that a write beyond a
# tensor would stay within its segment, and go unseen.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def sanitizer(setting: Setting) -> Report:
    """Run the first checks under memcheck. In a rehearsal without the tool, run them without it."""
    tool = shutil.which("compute-sanitizer")
    if tool is None and setting.rehearsed is None:
        return {"skipped": "compute-sanitizer is not on PATH"}
    left = max(1.0, setting.ends - time.monotonic())
    command = [sys.executable, "-m", "benchmarks.gpu", "--step", "subset", "--seconds", str(int(left)),
               *(["--labels", str(setting.labels)] if setting.labels else []),
               *(["--rehearsed", str(setting.rehearsed)] if setting.rehearsed else [])]  # fmt: skip
    if tool is not None:
        command = [tool, "--tool", "memcheck", "--error-exitcode", "9", *command]
    ended = run_group(command, left, environment=ENVIRONMENT)
    if ended.status is None:
        return {"skipped": f"compute-sanitizer did not end within {left:.0f} s: {ended.printed[-500:]}"}
    if tool is None:
        return {"passed": ended.status == 0, "skipped": "no compute-sanitizer: the checks ran without it"}
    errors = re.findall(r"ERROR SUMMARY: (\d+) error", ended.printed)
    if not errors:
        return {"skipped": f"compute-sanitizer did not run here: {ended.printed[-500:]}"}
    return {"errors": int(errors[-1]), "passed": ended.status == 0, "output": ended.printed[-2000:]}
