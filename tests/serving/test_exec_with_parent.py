"""A program that ends with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from served import wait_until

from serving.triton.exec_with_parent import __file__ as exec_with_parent

_PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), sys.executable, "-c", "input()"],
                         stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


def test_the_program_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, exec_with_parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    arguments = Path(f"/proc/{child}/cmdline")
    wait_until(lambda: b"input()" in arguments.read_bytes() and b"exec_with" not in arguments.read_bytes(), "the exec")
    parent.kill()
    parent.communicate()
    wait_until(lambda: not arguments.exists() or arguments.read_bytes() == b"", "the end of the program")


def test_a_parent_that_is_gone_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, exec_with_parent, str(os.getpid() + 1), sys.executable, "-c", "print('ran')"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"[serve] the parent process {os.getpid() + 1} is gone" in done.stderr
    assert done.stdout == ""
