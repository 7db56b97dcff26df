"""A client of HTTP/2: one connection, many streams, the h2 library as its codec.

Requests are asked without waiting (`ask`), answers are collected as they come (`run`, `read`).
`raw` sends bytes of its own past the library, as bad clients do.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

if TYPE_CHECKING:
    from wsproto.connection import Connection

GOAWAY = 7


@dataclass
class Parted:
    """What GOAWAY said."""

    last_stream_id: int
    error_code: int


@dataclass
class Response:
    """What came on one stream so far. `code` is that of a RST_STREAM, None: there was none."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    hints: list[list[tuple[str, str]]] = field(default_factory=list)  # fields of interim heads
    is_whole: bool = False
    code: int | None = None

    @property
    def status(self) -> int:
        """The status, 0: no head came."""
        return int(dict(self.fields).get(":status", 0))

    @property
    def text(self) -> str:
        """The body as Latin-1."""
        return self.body.decode("latin-1")

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)


class H2Client:
    """A connection to 127.0.0.1:port. `takes` False leaves windows as they are: a client that
    does not read."""

    def __init__(
        self, port: int, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None,
        window: int | None = None, takes: bool = True, name: str = "a.test",
    ) -> None:  # fmt: skip
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=name)
        self.timeout_s = timeout_s
        self.takes = takes
        # the library checks what it sends unless it is told not to: bad requests are asked too
        config = H2Configuration(
            client_side=True, header_encoding="latin-1", validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )  # fmt: skip
        self.h2 = H2Connection(config)
        self.responses: dict[int, Response] = {}
        self.parted: Parted | None = None
        self.unread = b""
        self.is_closed = False
        self.last = -1
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({4: window})
        self.flush()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # -- asking ---------------------------------------------------------------------------------
    def ask(
        self, target: str = "/", method: str = "GET", body: bytes | None = None, end: bool = True,
        fields: list[tuple[str, str]] | None = None, host: str = "a.test",
    ) -> int:  # fmt: skip
        """Send a request; with a body (as far as windows let it), or without. Its stream."""
        self.last += 2
        number = self.last
        block = [(":method", method), (":scheme", "http"), (":path", target), (":authority", host)]
        self.responses[number] = Response()
        self.h2.send_headers(number, block + (fields or []), end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.send(number, body, end)
        return number

    def open_websocket(self, path: str) -> Response:
        """Extended CONNECT (RFC 8441) on stream 1, once the server allows it; its answer's head."""
        while self.h2.remote_settings.get(8) is None:
            assert self.step()
        self.last = 1
        response = self.responses[1] = Response()
        self.h2.send_headers(1, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
            (":path", path), (":authority", "a.test"), ("sec-websocket-version", "13"),
        ])  # fmt: skip
        self.flush()
        while not response.fields:
            assert self.step()
        assert response.status == 200
        return response

    def read_message(self, number: int, websocket: Connection) -> bytes:
        """The next whole message of the WebSocket on a stream, in bytes."""
        response, got = self.responses[number], b""
        while True:
            websocket.receive_data(response.body)
            response.body = b""
            for event in websocket.events():
                got += event.data
                if event.message_finished:
                    return got
            assert self.step()

    def send(self, number: int, body: bytes, end: bool = False) -> None:
        """A piece of a body, waiting for windows while there are none."""
        at = 0
        while at < len(body) and self.responses[number].code is None:
            room = min(self.h2.local_flow_control_window(number), 16384, len(body) - at)
            if room == 0:
                self.step()
                if self.responses[number].is_whole:
                    return
                continue
            self.h2.send_data(number, body[at : at + room])
            at += room
            self.flush()
        if end and self.responses[number].code is None and not self.is_closed:
            self.h2.end_stream(number)
            self.flush()

    def raw(self, data: bytes) -> None:
        """Bytes of the caller's own."""
        self.sock.sendall(data)

    def flush(self) -> None:
        """What the library wants to be sent."""
        data = self.h2.data_to_send()
        if data and not self.is_closed:
            try:
                self.sock.sendall(data)
            except OSError:
                self.is_closed = True

    # -- reading --------------------------------------------------------------------------------
    def step(self, timeout_s: float | None = None) -> bool:
        """One read of what comes; False at the connection's end."""
        self.sock.settimeout(self.timeout_s if timeout_s is None else timeout_s)
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.is_closed = True
            return False
        self.unread += data
        while len(self.unread) >= 9 and len(self.unread) >= (size := 9 + int.from_bytes(
                self.unread[:3], "big")):  # fmt: skip
            frame, self.unread = self.unread[:size], self.unread[size:]
            if frame[3] == GOAWAY:  # for the library all would be over then
                last, code = struct.unpack(">II", frame[9:17])
                self.parted = Parted(last, code)
                continue
            for event in self.h2.receive_data(frame):
                self.note(event)
        self.flush()
        return True

    def note(self, event: Event) -> None:
        """What an event says of its stream."""
        response = self.responses.get(getattr(event, "stream_id", 0) or 0)
        if response is None:
            return
        if isinstance(event, ResponseReceived):
            response.fields = [(str(k), str(v)) for k, v in event.headers]
        elif isinstance(event, InformationalResponseReceived):
            response.interim.append(int(dict(event.headers)[":status"]))
            response.hints.append([(str(k), str(v)) for k, v in event.headers])
        elif isinstance(event, DataReceived):
            response.body += event.data
            if self.takes and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            response.trailers = [(str(k), str(v)) for k, v in event.headers]
        elif isinstance(event, StreamEnded):
            response.is_whole = True
        elif isinstance(event, StreamReset):
            response.code = int(event.error_code)

    def read(self, number: int) -> Response:
        """The whole answer on a stream, or what came of it before it was cut."""
        response = self.responses[number]
        limit = time.monotonic() + self.timeout_s
        while not response.is_whole and response.code is None and self.step():
            assert time.monotonic() < limit, response
        return response

    def get(self, target: str = "/", **more: object) -> Response:
        """One request and its answer."""
        return self.read(self.ask(target, **more))  # type: ignore[arg-type]

    def wait_closed(self) -> Parted | None:
        """Read until the connection ends; what GOAWAY said."""
        while self.step():
            pass
        return self.parted
