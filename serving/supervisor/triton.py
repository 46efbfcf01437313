"""Triton with its model processes, as a ward: dead, stopped, silent, wrong or leaking is noticed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from serving.supervisor.canary_watch import CanaryWatch
from serving.supervisor.limits import Limits
from serving.supervisor.processes import (
    Process,
    arguments_of,
    demand_s,
    descriptors_of,
    processes_of_group,
    read_process,
    reap,
)
from serving.supervisor.status import StatusPage
from serving.supervisor.ward import Fault, Reason
from serving.triton.restarts import RESTARTS
from serving.triton.run_directory import remove_shared_memory
from serving.triton.server import Launcher, Server

_STUB = "triton_python_backend_stub"
_LOOK_S = 0.1
_COUNT_S = 1.0  # between two looks at memory and descriptors


class TritonWard:
    """One Triton after another, each on the same ports.

    Args:
        launcher: starts them.
        limits: what counts as hung or leaking.
        replaced: True where a model's processes may end because a new version took over (a followed repository).
        shown: the counts that Triton shows itself, where there is no gateway.

    Attributes:
        server: the one that runs now, or ran last.
        answered: True once nobody asks any more, and everything is answered.
    """

    name = "triton"

    def __init__(
        self,
        launcher: Launcher,
        run: Path,
        limits: Limits,
        *,
        replaced: bool = False,
        shown: StatusPage | None = None,
    ) -> None:
        self._shown = shown
        self._launcher, self._run, self._limits, self._replaced = launcher, run, limits, replaced
        self.server: Server | None = None
        self.answered = False
        self._watch: _Watch | None = None

    def start(self, report: Callable[[str], None]) -> None:
        """See `Ward.start`. Raises ServeError, PortError."""
        if self._shown is not None:
            counts = self._shown.status.restarts
            by_reason = {reason: counts.get((self.name, reason), 0) for reason in get_args(Reason)}
            self._launcher.told[RESTARTS] = json.dumps(by_reason)
        self.server = self._launcher.start(report)
        self._watch = _Watch(self.server, self._limits, replaced=self._replaced)

    def look(self) -> Fault | None:
        """See `Ward.look`."""
        assert self._watch is not None
        return self._watch.look()

    def answers(self) -> bool:
        """See `Ward.answers`."""
        return self._watch is not None and self._watch.answers

    def kill(self) -> None:
        """See `Ward.kill`."""
        self._end_watch()
        if self.server is not None:
            self.server.kill()
            reap(self.server.process.pid)
            remove_shared_memory(self._run)

    def stop(self) -> None:
        """See `Ward.stop`."""
        self._end_watch()
        if self.server is not None:
            self.server.stop(answered=self.answered)
            reap(self.server.process.pid)

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class _Watch:
    """Looks at one running server.

    Attributes:
        answers: False while the canary is late, or the server has a fault.
    """

    def __init__(self, server: Server, limits: Limits, *, replaced: bool) -> None:
        self._server, self._limits, self._replaced = server, limits, replaced
        self.answers = True
        self._poll = select.poll()
        self._stubs: dict[int, tuple[int, str]] = {}  # descriptor -> (process, its model)
        self._members: list[Process] = []
        self._find_members()
        self._expected = Counter(model for _, model in self._stubs.values())
        self._canary = CanaryWatch(server, limits)
        self._stopped_since: float | None = None
        self._counted = 0.0

    def close(self) -> None:
        for descriptor in self._stubs:
            os.close(descriptor)
        self._stubs.clear()
        self._canary.close()

    def look(self) -> Fault | None:
        """Wait a moment, and say what is wrong."""
        ended = self._poll.poll(_LOOK_S * 1000)
        fault = self._server_ended() or self._ended([descriptor for descriptor, _ in ended]) or self._stopped()
        if fault is None:
            fault = self._counts() or self._canary.look(self._demand_s, self._engines())
        self.answers = fault is None and self._stopped_since is None and not self._canary.late
        return fault

    def _server_ended(self) -> Fault | None:
        if self._server.process.poll() is None:
            return None
        return Fault("dead", f"Triton ended with {self._server.ending()}: {self._server.reason()}")

    def _ended(self, descriptors: list[int]) -> Fault | None:
        """A model process that ended, unless a new version of its model has taken over."""
        if not descriptors:
            return None
        gone = [self._forget(descriptor) for descriptor in descriptors if descriptor in self._stubs]
        self._find_members()
        if not gone:
            return None
        pid, model = gone[0]
        if self._replaced and self._lives(model):
            return None
        return Fault("dead", f"process {pid} of model {model!r} ended")

    def _lives(self, model: str) -> bool:
        live = Counter(found for _, found in self._stubs.values())[model]
        return live >= self._expected[model]

    def _stopped(self) -> Fault | None:
        stopped = [now for process in self._members if (now := read_process(process.pid)) and now.stopped]
        if not stopped:
            self._stopped_since = None
            return None
        self._stopped_since = self._stopped_since or time.monotonic()
        if time.monotonic() - self._stopped_since < self._limits.stopped_s:
            return None
        return Fault("hung", f"process {stopped[0].pid} is stopped (SIGSTOP)")

    def _counts(self) -> Fault | None:
        if time.monotonic() - self._counted < _COUNT_S:
            return None
        self._counted = time.monotonic()
        self._find_members()
        memory = sum(process.rss_bytes for process in self._members)
        if memory > self._limits.memory_bytes:
            return Fault("memory", f"{memory >> 20} MiB in use, allowed are {self._limits.memory_bytes >> 20}")
        most = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * self._limits.descriptors_share)
        for process in self._members:
            if (count := descriptors_of(process.pid)) > most:
                return Fault("descriptors", f"process {process.pid} holds {count} descriptors, allowed are {most}")
        return None

    def _demand_s(self) -> float:
        """What Triton and its models have demanded of the processors so far, seconds."""
        return sum(demand_s(process.pid) for process in self._members)

    def _engines(self) -> frozenset[int]:
        """The processes of model `spade`: while they stay, the canary's image must too."""
        return frozenset(pid for pid, model in self._stubs.values() if model == "spade")

    def _forget(self, descriptor: int) -> tuple[int, str]:
        """A model process that ended, and its model; it is watched no more."""
        self._poll.unregister(descriptor)
        os.close(descriptor)
        return self._stubs.pop(descriptor)

    def _find_members(self) -> None:
        """Read the server's group anew, and watch each new model process for its end.

        One that ended stays watched until `look` has seen its end, so that no end is missed.
        """
        self._members = [p for p in processes_of_group(self._server.process.pid) if not p.ended]
        live = {process.pid for process in self._members}
        known = {pid for pid, _ in self._stubs.values()}
        for pid in live - known:
            arguments = arguments_of(pid)
            if not arguments or not arguments[0].endswith(_STUB):
                continue
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                self._poll.register(descriptor, select.POLLIN)
                self._stubs[descriptor] = pid, Path(arguments[1]).parts[-3]  # MODEL/VERSION/model.py
