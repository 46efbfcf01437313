"""When the canary is sent, and what its answers say about the server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from serving.supervisor.canary import Canary, CanaryError, same_image
from serving.supervisor.limits import Limits
from serving.supervisor.ward import Fault
from serving.triton.ask import ask
from serving.triton.server import Server

_IDLE = 0.1  # demand for processors, in seconds a second, below which the models do nothing
_LOOK_S = 0.5  # what a look counts at most: nobody is late because the supervisor itself had to wait
_BUSY = 10  # times as long may models compute without an image
_SCRAPE_S = 0.5  # the models write their metrics as often
_SCRAPE_TIMEOUT_S = 1.0
_MADE = re.compile(r"^spade(?:_images|_image_requests)_total\{[^}]*\} (\d+)", re.MULTILINE)


class CanaryWatch:
    """Sends the canary as often as it is cheap, and judges its answers.

    A server under load answers late but makes images, and is let be; so is one that waits for processors which other
    programs use. Models that do nothing while the canary waits are hung; so are, after ten times as long, models that
    compute and make no image.

    Attributes:
        late: an answer is overdue, or was an error.
    """

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server, self._limits = server, limits
        self._canary = Canary(server.grpc_url.removeprefix("grpc://"))
        self._prepared = False
        self.late = False
        self._cost_s = 0.0  # of the fastest answer so far
        self._failures = 0
        self._received_at = 0.0
        self._sent = (0.0, 0.0)  # when the canary was sent, and the server's demand for processors then
        self._waited, self._looked = 0.0, 0.0  # how long the canary has waited, and until when that is counted
        self._engines: frozenset[int] = frozenset()  # who drew the reference
        self._reference = b""
        self._images = 0
        self._progressed = self._scraped = 0.0

    def close(self) -> None:
        self._canary.close()

    def look(self, demand_s: Callable[[], float], engines: frozenset[int]) -> Fault | None:
        """Send or receive.

        Args:
            demand_s: tells what the server has demanded of the processors so far, see `processes.demand_s`. It reads a
                file for each of the server's threads, so it is called only where the demand decides something.
            engines: the processes that draw; while they stay, so must the canary's image.
        """
        try:
            if not self._prepared:
                self._canary.prepare(self._limits.hung_s)
                self._prepared = True
            if self._canary.waits_s == 0:
                self._send_if_due(demand_s, engines)
                return None
            self._waited += min(time.monotonic() - self._looked, _LOOK_S)
            self._looked = time.monotonic()
            waited = self._canary.waits_s
            image = self._canary.receive()
        except CanaryError as error:
            return self._failed(error)
        if image is None:
            return self._overdue(demand_s)
        self.late, self._failures, self._received_at = False, 0, time.monotonic()
        self._cost_s = min(self._cost_s or waited, waited)
        return self._compared(image, engines) if image else None

    def _send_if_due(self, demand_s: Callable[[], float], engines: frozenset[int]) -> None:
        pause = time.monotonic() - self._received_at
        if pause < max(self._limits.canary_s, 10 * self._cost_s):
            return
        demand = demand_s()
        if self._idle(demand) or pause >= max(4 * self._limits.canary_s, 100 * self._cost_s):
            if engines != self._engines:
                self._engines, self._reference = engines, b""
            self._sent = time.monotonic(), demand
            self._waited, self._looked = 0.0, time.monotonic()
            self._canary.send()

    def _idle(self, demand_s: float) -> bool:
        """True where the server hardly wanted a processor since the last canary was sent."""
        since, before = self._sent
        return demand_s - before < _IDLE * (time.monotonic() - since) + self._cost_s

    def _compared(self, image: bytes, engines: frozenset[int]) -> Fault | None:
        if not engines or engines != self._engines:
            return None  # an engine file inside Triton, or another version took over on the way
        self._reference = self._reference or image
        return None if same_image(image, self._reference) else Fault("wrong", "the canary's image changed")

    def _failed(self, error: CanaryError) -> Fault | None:
        self._failures += 1
        self.late, self._received_at = True, time.monotonic()
        if self._failures < self._limits.failures:
            return None
        return Fault("failing", f"the canary failed {self._failures} times: {error}")

    def _overdue(self, demand_s: Callable[[], float]) -> Fault | None:
        waited = self._waited
        if waited < self._limits.late_s + 10 * self._cost_s:
            return None
        hung_s = self._limits.hung_s + 30 * self._cost_s
        if self._idle(demand_s()):
            self.late = True
            return None if waited < hung_s else Fault("hung", f"no answer to the canary for {waited:.1f} s")
        self._scrape()
        hung_s *= _BUSY
        silent = min(waited, time.monotonic() - self._progressed)
        self.late = silent >= hung_s / 2
        return None if silent < hung_s else Fault("hung", f"the models compute, but made no image for {silent:.1f} s")

    def _scrape(self) -> None:
        """Note whether images were made since the last time."""
        now = time.monotonic()
        if now - self._scraped < _SCRAPE_S:
            return
        self._scraped = now
        try:
            images = sum(map(int, _MADE.findall(ask(self._server.metrics_url, _SCRAPE_TIMEOUT_S))))
        except OSError:
            return
        if images != self._images:
            self._images, self._progressed = images, now
