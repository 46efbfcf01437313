"""What the supervisor reads of processes: stopped, ended, idle or busy, and whose group they are in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from served import wait_until

from serving.supervisor.processes import arguments_of, demand_s, descriptors_of, processes_of_group, read_process


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_stopped_process_is_told_from_one_that_waits_and_one_that_has_ended() -> None:
    with running("input()") as process:
        wait_until(lambda: (now := read_process(process.pid)) and now.state == "S", "waiting")
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: (now := read_process(process.pid)) and now.stopped, "the stop")
        process.kill()
        wait_until(lambda: (now := read_process(process.pid)) and now.ended, "the end")
    assert read_process(process.pid) is None
    assert arguments_of(process.pid) == []
    assert descriptors_of(process.pid) == 0
    assert demand_s(process.pid) == 0


def test_a_busy_process_demands_processors_and_a_blocked_one_none() -> None:
    with running("while True: pass") as busy, running("input()") as blocked:
        wait_until(lambda: (now := read_process(blocked.pid)) and now.state == "S", "waiting")
        before, idle = demand_s(busy.pid), demand_s(blocked.pid)
        wait_until(lambda: demand_s(busy.pid) > before + 0.5, "demand")  # however busy the machine is
        assert demand_s(blocked.pid) < idle + 0.1


def test_a_group_holds_the_children_of_its_leader() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with running(code) as process:
        # A child counts from its fork on, and has next to no memory until Python runs in it.
        wait_until(lambda: len(processes_of_group(process.pid)) == 2, "the child")
        wait_until(lambda: all(one.rss_bytes > 1 << 20 for one in processes_of_group(process.pid)), "Python in both")
        assert {member.group for member in processes_of_group(process.pid)} == {process.pid}
        os.killpg(process.pid, signal.SIGKILL)
