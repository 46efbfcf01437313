"""Sessions of live painting: a label map and a style on the server, which outlive a lost connection."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.gateway.live_messages import Edit, Map
from serving.gateway.styles import Style

ID_BYTES = 18  # of randomness in a session's id: nobody guesses somebody else's


class SessionsFullError(RuntimeError):
    """No session can be opened now."""


@dataclass(eq=False)
class LiveSession:
    """One painting.

    Attributes:
        id: names the session to its owner and to the engine, 24 characters.
        owner: key or address of the client that opened the session.
        labels: uint8 [H, W], without the edits that wait; changed in place.
        style: None until the client has chosen one.
        has_map: the client has sent a whole map.
        revision: number of the last change, as the client counts.
        left: when the last connection left, `time.monotonic`; None while one is there.
        close: ends the connection that is there, because a newer one takes over.
    """

    id: str
    owner: str
    labels: npt.NDArray[np.uint8]
    style: Style | None = None
    has_map: bool = False
    revision: int = 0
    left: float | None = None
    close: Callable[[], None] | None = field(default=None, repr=False)
    _edits: list[Edit] = field(default_factory=list, repr=False)
    _adding: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the edits that are not yet written into the map."""
        return sum(len(edit.code) for edit in self._edits)

    def add(self, edit: Edit) -> None:
        """Keep an edit until somebody asks for the map; edits that it covers go."""
        with self._adding:
            self._edits = [*(old for old in self._edits if not edit.covers(old)), edit]

    def current(self) -> Map:
        """A copy of the map with every edit that came before this call. Takes milliseconds, so not for an event loop.

        Raises the first ValueError of an edit, after all others are written.
        """
        with self._writing:
            with self._adding:
                edits, self._edits = self._edits, []
            errors = []
            for edit in edits:
                try:
                    edit.apply(self.labels)
                except ValueError as error:
                    errors.append(error)
            if errors:
                raise errors[0]
            return self.labels.copy()


class LiveSessions:
    """The sessions of one gateway, bounded in number and bytes. Runs on one event loop.

    Args:
        most: number of sessions.
        most_bytes: of all label maps and waiting edits together.
        idle_s: seconds without a connection after which a session is forgotten.
        clock: seconds that never go back.
    """

    def __init__(
        self, most: int = 1024, most_bytes: int = 256 << 20, idle_s: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.most, self.most_bytes, self.idle_s = most, most_bytes, idle_s
        self._clock = clock
        self._sessions: dict[str, LiveSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def connected(self) -> int:
        """Sessions that somebody is connected to."""
        return sum(session.close is not None for session in self._sessions.values())

    @property
    def bytes(self) -> int:
        """Bytes of all label maps and waiting edits."""
        return sum(session.labels.nbytes + session.waiting_bytes for session in self._sessions.values())

    def join(self, name: str | None, owner: str, size: tuple[int, int], close: Callable[[], None]) -> LiveSession:
        """The session called `name` where its owner comes back to it at the same size, else a new one.

        A connection that is still there is ended. Raises SessionsFullError.
        """
        self._forget_idle()
        found = self._sessions.get(name) if name is not None else None
        if found is None or found.owner != owner or found.labels.shape != size:
            found = self._open(owner, size)
        elif found.close is not None:
            found.close()
        found.left, found.close = None, close
        return found

    def leave(self, session: LiveSession, close: Callable[[], None]) -> None:
        """A connection has ended; its session waits for the next one, unless a newer connection has it already."""
        if session.close is close:
            session.close, session.left = None, self._clock()

    def drop(self, session: LiveSession) -> None:
        """Forget a session."""
        self._sessions.pop(session.id, None)

    def _open(self, owner: str, size: tuple[int, int]) -> LiveSession:
        labels = np.zeros(size, np.uint8)
        while len(self._sessions) >= self.most or self.bytes + labels.nbytes > self.most_bytes:
            # The session that nobody has been connected to for longest makes room.
            idle = min((s for s in self._sessions.values() if s.left is not None), key=_left, default=None)
            if idle is None:
                raise SessionsFullError(
                    f"[live] expected at most {self.most} sessions of together {self.most_bytes} bytes but all of them "
                    "are in use; try again later"
                )
            self.drop(idle)
        session = LiveSession(secrets.token_urlsafe(ID_BYTES), owner, labels)
        self._sessions[session.id] = session
        return session

    def _forget_idle(self) -> None:
        last = self._clock() - self.idle_s
        for session in [s for s in self._sessions.values() if s.left is not None and s.left <= last]:
            self.drop(session)


def _left(session: LiveSession) -> float:
    return session.left or 0.0
