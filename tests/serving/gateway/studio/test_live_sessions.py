"""Sessions of live painting: who gets which, how many there are, and when they end."""

from __future__ import annotations

import pytest

from serving.gateway.sessions import LiveSession, LiveSessions, SessionsFullError

SIZE = (8, 16)


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def close() -> None:
    """End a connection that is no connection."""


def left(sessions: LiveSessions, owner: str = "me") -> LiveSession:
    """A session that somebody has opened and left."""
    session = sessions.join(None, owner, SIZE, close)
    sessions.leave(session, close)
    return session


def test_an_owner_comes_back_to_a_session_and_nobody_else_does() -> None:
    sessions = LiveSessions()
    session = left(sessions)
    assert sessions.join(session.id, "somebody else", SIZE, close) is not session
    assert sessions.join(session.id, "me", (16, 16), close) is not session  # the model has another size now
    assert sessions.join(session.id, "me", SIZE, close) is session


def test_a_newer_connection_ends_the_older_one() -> None:
    ended = []
    sessions = LiveSessions()

    def older() -> None:
        ended.append("older")

    session = sessions.join(None, "me", SIZE, older)
    assert sessions.join(session.id, "me", SIZE, close) is session
    assert ended == ["older"]
    sessions.leave(session, older)
    assert session.left is None  # the newer connection is still there


def test_a_session_is_forgotten_after_idle_seconds_without_a_connection() -> None:
    clock = Clock()
    sessions = LiveSessions(idle_s=10, clock=clock)
    connected = sessions.join(None, "me", SIZE, close)
    gone = left(sessions)
    clock.now = 9.0
    assert sessions.join(gone.id, "me", SIZE, close) is gone
    sessions.leave(gone, close)
    clock.now = 19.0
    assert sessions.join(gone.id, "me", SIZE, close) is not gone
    assert sessions.join(connected.id, "me", SIZE, close) is connected


def test_the_session_left_longest_ago_makes_room() -> None:
    clock = Clock()
    sessions = LiveSessions(most=2, clock=clock)
    first = left(sessions)
    clock.now = 1.0
    second = left(sessions)
    third = sessions.join(None, "me", SIZE, close)
    assert sessions.join(second.id, "me", SIZE, close) is second
    assert len(sessions) == 2
    with pytest.raises(SessionsFullError, match=r"\[live\] expected at most 2 sessions .* all of them are in use"):
        sessions.join(first.id, "me", SIZE, close)
    sessions.leave(third, close)
    sessions.join(None, "me", SIZE, close)


def test_bytes_are_bounded_too() -> None:
    sessions = LiveSessions(most_bytes=2 * 8 * 16)
    for _ in range(5):
        left(sessions)
    assert len(sessions) == 2
    assert sessions.bytes == 2 * 8 * 16
