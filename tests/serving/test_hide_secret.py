"""Hiding a secret in the arguments of a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.triton.hide_secret import hide


def test_every_copy_of_the_secret_is_overwritten_and_the_rest_stays() -> None:
    code = "print('ready', flush=True); input(); print('alive', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code, "first:s3cret", "between", "second:s3cret"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            hide(child.pid, "s3cret")
        except OSError as error:
            child.communicate("\n")
            pytest.skip(f"this system forbids writing to a child's memory: {error}")
        shown = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")
        assert shown[-4:-1] == [b"first:xxxxxx", b"between", b"second:xxxxxx"]
        assert child.communicate("\n")[0] == "alive\n"
