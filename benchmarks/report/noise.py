"""What disturbs a run: the clock, other programs, the hypervisor. A disturbed run is marked; its figures are kept."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil

OTHERS_CORES = 0.1  # cores that other programs may use; a quiet Linux uses 0.01 to 0.05
STEAL_SHARE = 0.02
CLOCK_SPREAD = 0.15
FIRST_TURN = 0.1
_LISTED = 3  # processes that are named
_WORK = bytes(1 << 18)  # hashed in some 0.2 to 1 ms: long for a timer, short for a scheduler


class NoiseMeter:
    """Watches the machine from its making to `finish`. Call `sample` between turns, when no contender runs.

    Args:
        served_elsewhere: the server that is measured is no child of this process. Its use of this machine, if it runs
            here, cannot be told from other programs' use, so other programs are not judged.
    """

    def __init__(self, served_elsewhere: bool = False) -> None:
        self._served_elsewhere = served_elsewhere
        self._began = time.perf_counter()
        self._machine, self._ours, self._load = psutil.cpu_times(), _tree_seconds(), os.getloadavg()[0]
        self._others = _seconds_of_others()
        self._clock: list[float] = []
        self.sample()

    def sample(self) -> None:
        """Time a fixed piece of work, the best of three: the clock of a core at this moment."""
        times = []
        for _ in range(3):
            began = time.perf_counter()
            hashlib.sha256(_WORK).digest()
            times.append(time.perf_counter() - began)
        self._clock.append(min(times))

    def finish(self) -> dict[str, Any]:
        """The field `noise` of a report."""
        self.sample()
        seconds = time.perf_counter() - self._began
        now, cores = psutil.cpu_times(), os.cpu_count() or 1
        busy = _busy(now) - _busy(self._machine) - (_tree_seconds() - self._ours)
        steal = (getattr(now, "steal", 0.0) - getattr(self._machine, "steal", 0.0)) / (seconds * cores)
        used = _seconds_of_others() - self._others
        found: dict[str, Any] = {
            "load": [round(self._load, 2), round(os.getloadavg()[0], 2)],
            "others_cores": round(max(0.0, busy / seconds), 3),
            "steal_share": round(max(0.0, steal), 4),
            "clock_spread": round(max(self._clock) / min(self._clock) - 1, 3),
            "clock_ms": [round(1e3 * value, 4) for value in self._clock[:1000]],
            "processes": [
                {"name": name, "cores": round(spent / seconds, 3)}
                for name, spent in used.most_common(_LISTED)
                if spent / seconds >= OTHERS_CORES / 10
            ],
        }
        reasons = self._reasons(found)
        return {"verdict": "busy" if reasons else "calm", "reasons": reasons} | found

    def _reasons(self, found: dict[str, Any]) -> list[str]:
        reasons = []
        if found["others_cores"] > OTHERS_CORES and not self._served_elsewhere:
            names = ", ".join(f"{one['name']} {one['cores']:.2f}" for one in found["processes"])
            reasons.append(f"other programs used {found['others_cores']:.2f} cores" + (f" ({names})" if names else ""))
        if found["steal_share"] > STEAL_SHARE:
            reasons.append(f"the hypervisor took {found['steal_share']:.1%} of the cores' time")
        if found["clock_spread"] > CLOCK_SPREAD:
            reasons.append(f"the same work took up to {found['clock_spread']:.0%} longer between turns")
        return reasons


def first_turn(rows: Sequence[dict[str, Any]]) -> float | None:
    """How much longer the first turn took than the median of the later ones, as the median over rows; None without.

    Above 0 where a contender or the machine was not warm yet: memory that is written for the first time, a clock that
    rises.
    """
    found = []
    for row in rows:
        turns = [value for value in next(iter(row["measures"].values()), []) if value is not None]
        if len(turns) >= 3:
            found.append(turns[0] / statistics.median(turns[1:]) - 1)
    return round(statistics.median(found), 3) if found else None


def noise_line(noise: dict[str, Any]) -> str:
    """The noise in a sentence or two."""
    cold = noise.get("first_turn")
    ending = f"; the first turn took {cold:.0%} longer than later ones" if cold and cold > FIRST_TURN else ""
    return _verdict(noise) + ending


def _verdict(noise: dict[str, Any]) -> str:
    if noise["verdict"] == "busy":
        return f"BUSY MACHINE: {'; '.join(noise['reasons'])}. Read ratios of the same run, or run again."
    return (
        f"calm machine: others used {noise['others_cores']:.2f} cores, steal {noise['steal_share']:.1%}, "
        f"clock within {noise['clock_spread']:.0%}"
    )


def _busy(times: Any) -> float:
    """Seconds of all cores that some program used, the hypervisor's and other machines' time left out."""
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _tree() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def _tree_seconds() -> float:
    """Seconds of this process, its children, and all that they have waited for."""
    total = 0.0
    for process in _tree():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its parent counts its seconds from now on
        total += sum(times[:4])  # user, system, and both of the children that have ended
    return total


def _seconds_of_others() -> Counter[str]:
    """Seconds of each program that is no child of this process, by name."""
    ours = {process.pid for process in _tree()}
    found: Counter[str] = Counter()
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        times = process.info["cpu_times"]
        if process.pid not in ours and times is not None:
            found[process.info["name"]] += times.user + times.system
    return found
