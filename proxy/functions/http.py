"""The controller's HTTP/1.1 server: what workers pass on of the API and of asynchronous calls.

It listens on the controller's Unix socket alone (links.py hands connections over), so what comes
was read and limited by a worker before. Who serves something registers it:

    routes = Routes()
    routes.add("GET PUT", "/things/{name}/{rest...}", handle)

    async def handle(request: Request) -> Answer: …

A request that comes whole in one piece, as nearly all do, is read by the gateway's own parser and
costs a quarter; others by h11.

`{name}` is one segment, decoded; `{rest...}` is what is left of the path, as it came. Both stand
in `request.names`. A handler raises Refused for an error that the client shall read; whatever
else it raises is a 500 and a line in the error log. When the client goes away the handler is
cancelled. Bodies stream both ways: `request.pieces()`, and an async iterator as Answer.body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote

import h11

from proxy.wire.h1_door import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Handle = Callable[["Request"], Awaitable["Answer"]]
    Field = tuple[bytes, bytes]

HEAD_BYTES = 64 * 1024
HELD_BYTES = 128 * 1024  # of a body that nobody reads yet; beyond, reading stops
BODY_BYTES = 1 << 20
LEFT_BYTES = 1 << 20  # of a body that nobody wanted, read to its end to keep the connection
MOST_CONNECTIONS = 4096
NO_BODY = (204, 304)
REASONS = {it.value: it.phrase.encode() for it in HTTPStatus}
WHOLE_BYTES = 64 * 1024
QUIET_S = 0.1
UNFIT = str.maketrans("\r\n\0", "   ")
TEXT = "text/plain; charset=utf-8"


class Refused(Exception):
    """An answer that is an error: `text` says in a sentence what is wrong."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


@dataclass(slots=True)
class Answer:
    """body: bytes, or an async iterator of pieces, sent as they come."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = TEXT
    headers: Iterable[tuple[str, str]] = ()


def json_answer(value: Any, status: int = 200) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Answer(status, body, "application/json")


class Request:
    """method; path (as it came, no query); query (last value of a name); headers in order, names
    in lower case; names: what the route's pattern held."""

    __slots__ = ("_connection", "_is_read", "headers", "method", "names", "path", "query_text")

    def __init__(
        self, method: bytes, target: bytes, fields: Iterable[Field], connection: Connection
    ) -> None:
        self.method = method.decode("ascii")
        path, _, query = target.decode("latin-1").partition("?")
        self.path = path
        self.query_text = query
        self.headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in fields]
        self.names: dict[str, str] = {}
        self._connection = connection
        self._is_read = False

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.query_text, keep_blank_values=True, max_num_fields=100))

    def header(self, name: str, default: str = "") -> str:
        """The first field of that name (in lower case)."""
        return next((value for key, value in self.headers if key == name), default)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while not self._is_read:
            piece = await self._connection.read_piece()
            if piece is None:
                self._is_read = True
                return
            yield piece

    async def body(self, limit: int = BODY_BYTES) -> bytes:
        """The body, whole. Raises Refused (413) when it is longer than `limit`."""
        length = self.header("content-length")
        if length.isdigit() and int(length) > limit:
            raise Refused(413, f"the body is longer than {limit} bytes")
        parts, size = [], 0
        async for piece in self.pieces():
            size += len(piece)
            if size > limit:
                raise Refused(413, f"the body is longer than {limit} bytes")
            parts.append(piece)
        return b"".join(parts)

    async def json(self, limit: int = BODY_BYTES) -> dict[str, Any]:
        """The body as a JSON object. Raises Refused (400)."""
        data = await self.body(limit)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is no JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "the body is no JSON object")
        return value


class Routes:
    """Which handler a request is for. is_open: requests wait until it is set."""

    def __init__(self, is_open: asyncio.Event | None = None) -> None:
        self._is_open = is_open
        self._rows: dict[str, list[tuple[frozenset[str], list[str], Handle]]] = {}

    def add(self, methods: str, pattern: str, handle: Handle) -> None:
        """`methods` are separated by spaces; a route for GET is one for HEAD too."""
        parts = pattern.strip("/").split("/")
        names = frozenset(methods.split())
        if "GET" in names:
            names |= {"HEAD"}
        self._rows.setdefault(parts[0], []).append((names, parts, handle))

    async def handle(self, request: Request) -> Answer:
        """Raises Refused for a path or method nobody serves."""
        if self._is_open is not None:
            await self._is_open.wait()
        parts = request.path.lstrip("/").split("/")
        allowed: set[str] = set()
        for methods, pattern, handle in self._rows.get(parts[0], ()):
            names = match(pattern, parts)
            if names is None:
                continue
            if request.method in methods:
                request.names = names
                return await handle(request)
            allowed |= methods
        if allowed:
            raise Refused(405, "method not allowed", ("Allow", ", ".join(sorted(allowed))))
        raise Refused(404, "not found")


def match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    """What the names in a pattern stand for, or None when the path is another."""
    names = {}
    for number, word in enumerate(pattern):
        if word.endswith("...}"):
            rest = "/".join(parts[number:])
            names[word[1:-4]] = f"/{rest}" if number < len(parts) else ""
            return names
        if number >= len(parts):
            return None
        if word[:1] == "{":
            names[word[1:-1]] = unquote(parts[number])
        elif word != parts[number]:
            return None
    if len(parts) > len(pattern) and parts[len(pattern) :] != [""]:
        return None
    return names


class Connection(asyncio.Protocol):
    """One connection of a worker: requests one after the other."""

    living = 0
    busy = 0  # those that answer a request
    answered = 0
    is_leaving = False  # each ends with its next answer

    def __init__(self, routes: Routes, warn: Callable[[str], None]) -> None:
        self._routes = routes
        self._warn = warn
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._held = 0
        self._is_paused = False
        self._is_waiting = False  # for a request
        self._whole: Request | None = None  # the one that is answered, if it came whole
        self._body: bytes | None = None  # … and its body, until it is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        Connection.living += 1
        if Connection.living > MOST_CONNECTIONS:
            self._transport.close()
            return
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._is_waiting and not self._held and len(data) <= WHOLE_BYTES:
            found = read_whole(data)
            if found is not None:
                method, target, fields, self._body = found
                self._whole = Request(method, target, fields, self)
                self._wake()
                return
        self._http.receive_data(data)
        self._held += len(data)
        if self._held > HELD_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """A worker never closes one side only: it is gone."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        Connection.living -= 1
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def _next(self) -> Any:
        """The next event of the parser. Raises h11.RemoteProtocolError."""
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._held = 0
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            self._more = asyncio.get_running_loop().create_future()
            await self._more
            if self._is_waiting and self._whole is not None:
                return None

    async def _next_request(self) -> Request | None:
        """None: the connection is at its end."""
        self._is_waiting = True
        event = await self._next()
        self._is_waiting = False
        if self._whole is not None:
            return self._whole
        if not isinstance(event, h11.Request):
            return None
        return Request(event.method, event.target, event.headers, self)

    async def read_piece(self) -> bytes | None:
        """Of the request's body; None is its end."""
        if self._whole is not None:
            body, self._body = self._body, None
            return body or None
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _serve(self) -> None:
        try:
            while True:
                request = await self._next_request()
                if request is None:
                    break
                Connection.busy += 1
                try:
                    await self._answer(request)
                finally:
                    Connection.busy -= 1
                    Connection.answered += 1
                if Connection.is_leaving:
                    break
                if self._whole is not None:
                    self._whole = self._body = None
                    continue
                if not await self._is_reusable():
                    break
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            self._warn(f"a request to the controller was broken: {error}")
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                with contextlib.suppress(h11.LocalProtocolError):
                    await self._send(Answer(error.error_status_hint, b"bad request\n"), False)
        except ConnectionError:
            pass
        finally:
            self._transport.close()

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._routes.handle(request)
        except Refused as error:
            answer = Answer(error.status, error.text.encode() + b"\n", headers=error.headers)
        except (asyncio.CancelledError, h11.RemoteProtocolError):
            raise
        except Exception as error:
            self._warn(f"{request.method} {request.path} failed: {type(error).__name__}: {error}")
            answer = Answer(500, b"the controller failed, its error log says why\n")
        await self._send(answer, request.method == "HEAD")

    async def _send(self, answer: Answer, is_head: bool) -> None:
        body, status = answer.body, answer.status
        headers = list(answer.headers)
        if status not in NO_BODY:
            headers.append(("Content-Type", answer.content_type))
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
        if Connection.is_leaving:
            headers.append(("Connection", "close"))
        has_body = not is_head and status not in NO_BODY
        if self._whole is not None:
            if not isinstance(body, bytes) and status not in NO_BODY:
                headers.append(("Transfer-Encoding", "chunked"))
            head = head_bytes(status, headers)
            if isinstance(body, bytes):
                self._transport.write(head + body if has_body else head)
                await self._writable.wait()
                return
        else:
            head = self._http.send(
                h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))
            )
            if isinstance(body, bytes):
                if body and has_body:
                    head += self._http.send(h11.Data(data=body)) or b""
                self._transport.write(head + (self._http.send(h11.EndOfMessage()) or b""))
                await self._writable.wait()
                return
        self._transport.write(head)
        try:
            async for piece in body:
                if piece and has_body:
                    self._write(h11.Data(data=piece))
                    await self._writable.wait()
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
        if has_body or self._whole is None:
            self._write(h11.EndOfMessage())

    def _write(self, event: Any) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError
        if self._whole is None:
            self._transport.write(self._http.send(event) or b"")
        elif isinstance(event, h11.Data):
            self._transport.write(b"%x\r\n%b\r\n" % (len(event.data), event.data))
        else:
            self._transport.write(b"0\r\n\r\n")

    async def _is_reusable(self) -> bool:
        """Is the request read to its end, and may another follow?"""
        left = 0
        while self._http.their_state is h11.SEND_BODY and left <= LEFT_BYTES:
            if self._http.they_are_waiting_for_100_continue:
                return False
            piece = await self.read_piece()
            left += len(piece or b"")
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE


async def leave(limit_s: float) -> None:
    """No listener takes connections any more: answer what comes yet on those there are, until
    nothing has come for a moment."""
    Connection.is_leaving = True
    end_s = asyncio.get_running_loop().time() + limit_s
    while asyncio.get_running_loop().time() < end_s:
        before = Connection.answered
        await asyncio.sleep(QUIET_S)
        if not Connection.busy and Connection.answered == before:
            return


def read_whole(data: bytes) -> tuple[bytes, bytes, list[Field], bytes] | None:
    """method, target, fields and body of a request that is all of `data`; None if it is not, or
    not a plain one."""
    reader = Reader(max_line=HEAD_BYTES, max_head=HEAD_BYTES, max_fields=200)
    size = reader.feed(data)
    if size <= 0:
        return None
    said = reader.message()
    length = said["length"] if said["body"] == "length" else 0
    if said["body"] not in ("length", "none") or len(data) != size + length:
        return None
    if "keep_alive" not in said["flags"] or said["flags"] & {"expect_continue", "upgrade"}:
        return None
    return said["method"], said["target"], said["fields"], data[size:]


def head_bytes(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of an answer. What cannot stand in a field's value becomes a space."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))]
    for name, value in headers:
        text = value.translate(UNFIT).encode("latin-1", "replace")
        lines.append(b"%b: %b\r\n" % (name.encode("ascii"), text))
    lines.append(b"\r\n")
    return b"".join(lines)
