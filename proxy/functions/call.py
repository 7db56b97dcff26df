"""The controller calls functions: an HTTP/1.1 client over the workers' internal listeners.

A call goes through a worker like anybody's request, so that waking, limits, slots and metrics
exist once. Connections are kept for a moment and reused; a call is sent a second time only when
its connection had been idle and was closed before a byte came back.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Headers = Sequence[tuple[str, str]]

IDLE_S = 4.0  # below every keep-alive time that a listener might have
MOST_IDLE = 128
CONNECT_S = 10.0
READ_BYTES = 65536
HEAD_BYTES = 64 * 1024
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade")
)  # fmt: skip  # RFC 9110 §7.6.1


class NoAnswer(Exception):
    """No whole answer came. was_sent: some of the request may have reached somebody."""

    def __init__(self, why: str, *, was_sent: bool) -> None:
        super().__init__(why)
        self.was_sent = was_sent


@dataclass(slots=True)
class Answered:
    """What came back. is_cut: there was more of the body than the limit; it holds the beginning."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_cut: bool = False

    def header(self, name: str) -> str:
        """The first value of a header (`name` in lower case), or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Connection:
    """One connection to `address`, in or out of the pool."""

    __slots__ = ("address", "idle_since_s", "is_fresh", "reader", "state", "writer")

    def __init__(
        self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address = address
        self.reader = reader
        self.writer = writer
        self.state = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self.is_fresh = True
        self.idle_since_s = 0.0

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.close()


class Client:
    """Calls whoever answers at one of `find_addresses()` (`unix:PATH` or `HOST:PORT`)."""

    def __init__(self, find_addresses: Callable[[], Sequence[str]]) -> None:
        self._find_addresses = find_addresses
        self._idle: list[Connection] = []
        self._turn = 0

    async def ask(
        self, method: str, target: str, headers: Headers, body: bytes, timeout_s: float, limit: int
    ) -> Answered:
        """One request to its answer, of whose body at most `limit` bytes are kept.

        Raises NoAnswer.
        """
        try:
            async with asyncio.timeout(timeout_s or None):
                while True:
                    connection = self._take() or await self._open()
                    try:
                        return await self._ask(connection, method, target, headers, body, limit)
                    except Stale:
                        continue
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s", was_sent=True) from None

    async def _ask(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        limit: int,
    ) -> Answered:
        can_stay = False
        try:
            answered = await exchange(connection, method, target, headers, body, limit)
            can_stay = connection.state.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}
            return answered
        finally:
            if can_stay and len(self._idle) < MOST_IDLE:
                connection.is_fresh = False
                connection.idle_since_s = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                connection.close()

    def _take(self) -> Connection | None:
        oldest_s = asyncio.get_running_loop().time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > oldest_s and not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        addresses = self._find_addresses()
        why = "no worker listens"
        for _ in addresses:
            self._turn = (self._turn + 1) % len(addresses)
            address = addresses[self._turn]
            try:
                return await connect(address)
            except OSError as error:
                why = f"connect to {address} failed: {error}"
        raise NoAnswer(why, was_sent=False)

    def close(self) -> None:
        """Let go of the idle ones."""
        while self._idle:
            self._idle.pop().close()


class Stale(Exception):
    """The reused connection was closed under the request, and nothing of an answer came."""


async def connect(address: str) -> Connection:
    """A plain connection to `unix:PATH` or `HOST:PORT`. Raises OSError."""
    async with asyncio.timeout(CONNECT_S):
        if address.startswith("unix:"):
            pair = await asyncio.open_unix_connection(address[5:])
        else:
            host, _, port = address.rpartition(":")
            pair = await asyncio.open_connection(host.strip("[]"), int(port))
    return Connection(address, *pair)


async def exchange(
    connection: Connection, method: str, target: str, headers: Headers, body: bytes, limit: int
) -> Answered:
    """One request and its answer on an idle connection. Raises NoAnswer, Stale."""
    state, reader, writer = connection.state, connection.reader, connection.writer
    has_answer = False
    try:
        whole = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        whole.append((b"Content-Length", b"%d" % len(body)))
        data = state.send(h11.Request(method=method, target=target, headers=whole)) or b""
        if body:
            data += state.send(h11.Data(data=body)) or b""
        data += state.send(h11.EndOfMessage()) or b""
        writer.write(data)
        answered = Answered(0, [], b"")
        parts: list[bytes] = []
        kept = 0
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                piece = await reader.read(READ_BYTES)
                has_answer = has_answer or bool(piece)
                state.receive_data(piece)
            elif isinstance(event, h11.Response):
                answered.status = event.status_code
                answered.headers = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in event.headers.raw_items()
                ]
            elif isinstance(event, h11.Data):
                if kept + len(event.data) > limit:
                    parts.append(bytes(event.data[: limit - kept]))
                    answered.is_cut = True
                    break
                kept += len(event.data)
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("closed")
        answered.body = b"".join(parts)
        if not answered.is_cut and state.our_state is h11.DONE is state.their_state:
            state.start_next_cycle()
        return answered
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise NoAnswer(f"the request cannot be sent: {error}", was_sent=False) from None
    except (OSError, h11.RemoteProtocolError) as error:
        if not has_answer and not connection.is_fresh:
            raise Stale from None
        raise NoAnswer(f"the connection broke: {error}", was_sent=True) from None
