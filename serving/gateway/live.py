"""`WS /v1/live`: live painting. The client sends edits of a label map; pictures come back, the newest state first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from serving.gateway import live_requests
from serving.gateway.away import begin
from serving.gateway.drawing import as_problem
from serving.gateway.live_messages import Edit, Json, Map, read_message, read_number, write_message
from serving.gateway.problems import KINDS, Problem
from serving.gateway.sessions import LiveSession, LiveSessions, SessionsFullError
from serving.gateway.state import State, caller_of
from serving.gateway.styles import read_style
from serving.gateway.upstream import UpstreamError
from serving.protocol import ModelInfo
from serving.requests.images import Encoding, read_encoding
from serving.traces import TRACEPARENT

router = APIRouter(tags=["live"])

HELLO_S = 10.0  # until the first message
IDLE_S = 900.0  # without a message
RETRY_S = 1.0  # where the queue does not say how long to wait
MOST_WAITING = 8 << 20  # bytes of edits that wait to be drawn, before the connection is no longer read
MOST_REQUESTS = 4  # of one connection at once
MOST_REVISION = 2**53
_GONE = KINDS["client-closed"][0]
_LATER = (429, 503, 504)  # statuses after which the same request may succeed

# Close codes: the private range of RFC 6455, with HTTP's numbers at the end.
TAKEN_OVER, IDLE, UNAVAILABLE, FOREIGN, WRONG = 4409, 4408, 4503, 4403, 4400


@router.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    """Serve one connection until either side ends it."""
    await socket.accept()
    if not _same_origin(socket):
        await socket.close(FOREIGN, "this page is of another origin")
        return
    state: State = socket.app.state.gateway
    sessions: LiveSessions = socket.app.state.live_sessions
    with contextlib.suppress(WebSocketDisconnect):
        try:
            model = await state.model()
        except UpstreamError as error:
            await socket.send_json({"type": "problem", "problem": as_problem(error).members()})
            await socket.close(UNAVAILABLE, "the model does not answer")
            return
        await Connection(socket, state, model.info).run(sessions)


def _same_origin(socket: WebSocket) -> bool:
    """Browsers name the page that opens a socket. A page of another site must not paint in its visitors' names."""
    origin = socket.headers.get("origin")
    return origin is None or origin.split("://", 1)[-1] == socket.headers.get("host")


def _read_format(header: Json) -> Encoding:
    """The format of pictures that a message asks for. Raises ValueError."""
    wanted = {name: header[name] for name in ("format", "quality") if header.get(name) is not None}
    return read_encoding({"format": "webp", **wanted})


class Connection:
    """One client, its session, what is new, and the loop that draws."""

    def __init__(self, socket: WebSocket, state: State, info: ModelInfo) -> None:
        self.socket, self.state, self.info = socket, state, info
        self.painter: live_requests.Painter
        self.changed = asyncio.Event()  # there is something to draw
        self.drained = asyncio.Event()  # edits were written into the map
        self.requests: set[asyncio.Task[None]] = set()
        self.sending = asyncio.Lock()

    async def run(self, sessions: LiveSessions) -> None:
        """Greet, then read and draw until the connection ends."""
        try:
            async with asyncio.timeout(HELLO_S):
                header, _ = await self.receive()
            joined = self._join(header, sessions)
        except (ValueError, TimeoutError) as error:
            await self.socket.close(WRONG, str(error)[:120])
            return
        except SessionsFullError as error:
            await self.problem(Problem("queue-full", str(error)), retry_after_s=RETRY_S)
            await self.socket.close(UNAVAILABLE, "no session is free")
            return
        drawing = asyncio.ensure_future(self._draw_forever())
        try:
            await self._welcome()
            await self._read_forever()
        finally:
            sessions.leave(self.session, joined)
            for task in (drawing, *self.requests):
                task.cancel()
            await asyncio.gather(drawing, *self.requests, return_exceptions=True)

    def _join(self, header: Json, sessions: LiveSessions) -> Callable[[], None]:
        if header["type"] != "hello":
            raise ValueError(f"[live] expected hello as the first message but got {header['type']!r:.50}")
        name = header.get("session")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"[live] expected session as a string or null but got {name!r:.50}")
        encoding = _read_format(header)
        caller, close = caller_of(self.socket), self._take_over
        owner = caller.name or (self.socket.client.host if self.socket.client else "")
        session = sessions.join(name, owner, (self.info.height, self.info.width), close)
        traceparent = self.socket.scope["state"][TRACEPARENT]
        self.painter = live_requests.Painter(self.state.upstream, self.info, caller, session, encoding, traceparent)
        return close

    @property
    def session(self) -> LiveSession:
        return self.painter.session

    def _take_over(self) -> None:
        """A newer connection has the session: end this one."""
        self.closing = asyncio.ensure_future(self.socket.close(TAKEN_OVER, "another connection has this session"))

    async def _welcome(self) -> None:
        session = self.session
        await self.socket.send_json(
            {"type": "welcome", "session": session.id, "resumed": session.has_map, "revision": session.revision,
             "height": self.info.height, "width": self.info.width}
        )  # fmt: skip
        if session.has_map:
            self.changed.set()

    # ---- Reading ----

    async def receive(self) -> tuple[Json, bytes]:
        """The next message. Raises ValueError for a wrong one, WebSocketDisconnect at the end."""
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        content = message.get("bytes")
        return read_message(message["text"] if content is None else content)

    async def _read_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    header, body = await self.receive()
            except TimeoutError:
                await self.socket.close(IDLE, "nothing was sent for a while")
                return
            except ValueError as error:
                await self._tell(error)
                continue
            try:
                await self._take(header, body)
            except ValueError as error:
                await self._tell(error, request=header.get("request"))

    async def _take(self, header: Json, body: bytes) -> None:
        kind = header["type"]
        if kind in ("map", "rect"):
            await self._take_edit(Edit.read(header, body, self.session.labels.shape), header)
        elif kind == "style":
            if not self.info.style:
                raise ValueError(f"[live] expected no style, since model {self.info.preset!r} has none; leave it out")
            self.session.style = read_style(header.get("style"), self.info.named_styles())
            self._count(header)
        elif kind == "format":
            self.painter.encoding = _read_format(header)
            self.changed.set()
        elif kind in live_requests.KINDS:
            self._start(live_requests.KINDS[kind], header, body)
        else:
            known = ", ".join(["map", "rect", "style", "format", *live_requests.KINDS])
            raise ValueError(f"[live] expected a message of type {known} but got {kind!r:.50}")

    async def _take_edit(self, edit: Edit, header: Json) -> None:
        if header["type"] == "map":
            self.session.has_map = True
        elif not self.session.has_map:
            raise ValueError("[live] expected a whole map before rectangles of it; send a message of type map first")
        while self.session.waiting_bytes > MOST_WAITING:
            self.drained.clear()
            await self.drained.wait()
        self.session.add(edit)
        self._count(header)

    def _count(self, header: Json) -> None:
        if header.get("revision") is not None:
            self.session.revision = read_number(header, "revision", 0, MOST_REVISION)
        self.changed.set()

    def _start(self, work: live_requests.Work, header: Json, body: bytes) -> None:
        if len(self.requests) >= MOST_REQUESTS:
            raise ValueError(f"[live] expected at most {MOST_REQUESTS} requests at once; wait for an answer first")
        task = asyncio.ensure_future(self._answer(partial(work, self.painter, header, body), header))
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)

    async def _answer(self, work: Callable[[], Coroutine[Any, Any, tuple[Json, bytes]]], header: Json) -> None:
        request = header.get("request")
        try:
            with self._counted(header["type"]):
                answer, body = await work()
        except Exception as error:  # noqa: BLE001 - every request is answered
            await self._tell(error, request=request)
        else:
            await self.send(answer | {"request": request}, body)

    # ---- Drawing ----

    async def _draw_forever(self) -> None:
        """Draw the newest state, whenever there is a newer one. What changed meanwhile is drawn once, after it."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            revision = self.session.revision
            try:
                labels = await self._written()
                if self.session.has_map:
                    await self._draw(labels, revision)
            except WebSocketDisconnect:
                return
            except Exception as error:  # noqa: BLE001 - a fault in one picture must not end the painting
                wait = await self._tell(error, revision=revision)
                if wait is not None:
                    await asyncio.sleep(wait)
                    self.changed.set()

    async def _written(self) -> Map:
        """The map with all edits so far. Raises ValueError."""
        try:
            return await asyncio.to_thread(self.session.current)
        finally:
            self.drained.set()

    async def _draw(self, labels: Map, revision: int) -> None:
        styles = None if self.session.style is None else [self.session.style]
        with self._counted("frame"):
            answer = await live_requests.ask(self.painter, labels[None], styles, session=self.session.id)
            (file,), file_s = await live_requests.encode(answer.images, self.painter.encoding)
        header = {
            "type": "frame",
            "revision": revision,
            "format": self.painter.encoding.format,
            "timings": asdict(answer.timings) | {"file_s": file_s},
        }
        await self.send(header, file)

    # ---- Sending ----

    async def send(self, header: Json, body: bytes) -> None:
        """Send a message with bytes; waits while the client is slow, so that stale pictures are never made."""
        async with self.sending:
            await self.socket.send_bytes(write_message(header, body))

    @contextlib.contextmanager
    def _counted(self, call: str) -> Iterator[None]:
        """Count the picture or request that the block makes. Raises Problem in the place of every error."""
        began, away, status = time.perf_counter(), begin(), _GONE
        try:
            yield
            status = 200
        except Exception as error:
            problem = _problem_of(error)
            status = KINDS[problem.kind][0]
            raise problem from error
        finally:
            seconds = time.perf_counter() - began
            self.state.metrics.count("live", call, str(status), seconds, away.seconds, self.painter.traceparent)

    async def problem(self, problem: Problem, **members: Any) -> None:
        """Tell what is wrong; the connection stays."""
        given = {name: value for name, value in members.items() if value is not None}
        async with self.sending:
            await self.socket.send_json({"type": "problem", "problem": problem.members(), **given})

    async def _tell(self, error: Exception, **members: Any) -> float | None:
        """Tell of an error. Returns the seconds after which the same may succeed; None where it never will."""
        problem = _problem_of(error)
        wait = float(problem.headers.get("Retry-After", RETRY_S)) if KINDS[problem.kind][0] in _LATER else None
        await self.problem(problem, retry_after_s=wait, **members)
        return wait


def _problem_of(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case ValueError():
            return Problem("invalid-request", str(error))
    return as_problem(error)
