"""One OpenVINO core a process: a second one leaves a freed stack to signal handlers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("spade_core", "kernels", "export", "serving", "trainer", "benchmarks", "tests", "scripts")

# Two users of OpenVINO, the older of which goes first; then a child ends, and its signal needs the handlers' stack.
TWO_USERS = """
import faulthandler, signal, subprocess
from export.openvino_core import openvino_core
faulthandler.enable()
signal.signal(signal.SIGCHLD, lambda *_: print("heard", flush=True))
first = openvino_core()
first.get_property("CPU", "FULL_DEVICE_NAME")
second = openvino_core()
second.get_property("CPU", "FULL_DEVICE_NAME")
del first
del second
subprocess.run(["true"])
"""


def test_a_signal_is_handled_after_two_users_of_openvino_have_gone() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", TWO_USERS], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "heard" in done.stdout


def test_nobody_else_makes_a_core() -> None:
    made = re.compile(r"\b(openvino|ov)\.Core\(\)")
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert len(files) > 100
    makers = {path.name for path in files if made.search(path.read_text())}
    assert makers == {"openvino_core.py"}
