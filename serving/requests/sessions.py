"""Sessions by name: the requests of one name draw one map that changes a little from request to request."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

from serving.engines.contract import Engine, Inputs, Session
from serving.engines.timings import Timings
from serving.requests.batch import Done, OnBatch, RequestError

SESSIONS = 256
"""Names that are remembered; the one used longest ago is forgotten first, which costs time and changes no image."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def check_session(name: object, maps: int) -> str | None:
    """The session that a request names, or None. Raises RequestError for a bad name, and for more than one map."""
    if name is None:
        return None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"[spade] expected session as 1 to 64 characters out of A-Z, a-z, 0-9, _ and - but got {name!r:.100}"
        )
    if maps != 1:
        raise RequestError(
            f"[spade] expected one label map in a request with a session but got {maps}; send each alone"
        )
    return name


class Sessions:
    """The sessions that requests have named. Calls from several threads run side by side.

    Args:
        engine: makes the sessions. It bounds their memory; this class bounds their number.
        on_batch: called for each drawing, with a size of 1.
    """

    def __init__(self, engine: Engine, on_batch: OnBatch) -> None:
        self._engine, self._on_batch = engine, on_batch
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def run(self, name: str, inputs: Inputs) -> Done | Exception:
        """Draw a request's map in a session, which a new name opens. Returns the image, or the error."""
        timings = Timings()
        try:
            image, _ = self._session(name).draw(inputs, timings)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, the request must be answered
            return error
        self._on_batch(timings, 1)
        return Done(image[None], timings, 1)

    def _session(self, name: str) -> Session:
        with self._lock:
            session = self._sessions.pop(name, None) or self._engine.session()
            self._sessions[name] = session
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
            return session
