"""Three machines on one: network namespaces joined by cables, or, where these are refused, addresses of loopback."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A machine.

    Attributes:
        address: where the others reach it.
        enter: what stands before a command that runs there.
    """

    address: str
    enter: tuple[str, ...] = ()


def refusal() -> str:
    """Why this user may not make network namespaces; empty where the user may."""
    done = subprocess.run(
        ["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


@contextlib.contextmanager
def loopback() -> Iterator[tuple[Host, Host, Host]]:
    """The front and two servers, as addresses that no other test is likely to have."""
    net = f"127.{random.SystemRandom().randrange(1, 255)}.{random.SystemRandom().randrange(1, 255)}"
    yield Host(f"{net}.1"), Host(f"{net}.2"), Host(f"{net}.3")


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[Host, Host, Host]]:
    """The front and two servers; a cable leads from the front to each server. All goes with the processes in them."""
    with contextlib.ExitStack() as stack:
        front, one, two = (stack.enter_context(_namespace()) for _ in range(3))
        for number, server in ((1, one), (2, two)):
            _run("ip", "link", "add", f"to{number}", "netns", str(front), "type", "veth",
                 "peer", "name", "eth0", "netns", str(server))  # fmt: skip
            _set_up(front, f"to{number}", f"10.77.{number}.1/24")
            _set_up(server, "eth0", f"10.77.{number}.2/24")
        yield Host("10.77.1.1", _enter(front)), Host("10.77.1.2", _enter(one)), Host("10.77.2.2", _enter(two))


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    """The process whose network namespace it is."""
    own = Path("/proc/self/ns/net").readlink()
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        try:
            while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
                assert process.poll() is None
                time.sleep(0.01)
            _run(*_enter(process.pid), "ip", "link", "set", "lo", "up")
            yield process.pid
        finally:
            process.kill()


def _enter(process: int) -> tuple[str, ...]:
    return "nsenter", f"--net=/proc/{process}/ns/net"


def _set_up(namespace: int, link: str, address: str) -> None:
    _run(*_enter(namespace), "ip", "address", "add", address, "dev", link)
    _run(*_enter(namespace), "ip", "link", "set", link, "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
