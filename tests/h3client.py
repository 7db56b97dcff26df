"""A client of HTTP/3: one connection, many streams, aioquic as its codec, a socket of its own.

Requests are asked without waiting (`ask`), answers are collected as they come (`step`, `read`).
`raw` writes bytes of its own to a stream, past HTTP/3, as bad clients do.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import FrameType, H3Connection, ProtocolError
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.tls import SessionTicket, State

LIMIT_S = 10.0
LARGE_HELLO = 1500  # bytes beside the rest of a ClientHello: two datagrams
GREASE = 0x0A0A  # an extension that nobody knows (RFC 8701)
CONTROL = 3  # the server's first stream of its own, as Headrace opens them


@dataclass
class Response:
    """What came on one stream so far. `code` is that of a RESET_STREAM, `stopped` that of a
    STOP_SENDING; None: there was none."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    is_whole: bool = False
    code: int | None = None
    stopped: int | None = None

    @property
    def status(self) -> int:
        """The status, 0: no head came."""
        return int(dict(self.fields).get(":status", 0))

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)


class Transport(QuicConnection):
    """Gives no window back while `takes` is False."""

    takes = True
    more_hello = 0  # bytes that the ClientHello is longer, as post-quantum keys make it

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self.more_hello:
            self.tls.handshake_extensions.append((GREASE, bytes(self.more_hello)))

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        if self.takes:
            super()._write_stream_limits(builder, space, stream)

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        if self.takes:
            super()._write_connection_limits(builder, space)


class Messages(H3Connection):
    """Notes GOAWAY, which aioquic reads over."""

    control = b""

    def _receive_stream_data_uni(self, stream: Any, data: bytes, stream_ended: bool) -> list:
        if stream.stream_id == CONTROL:
            self.control += data
        return super()._receive_stream_data_uni(stream, data, stream_ended)

    def _check_content_length(self, stream: Any) -> None:
        """An answer to HEAD has a length and no body."""

    @property
    def parted(self) -> int | None:
        """The last GOAWAY's stream number."""
        found, buffer = None, Buffer(data=self.control[1:])  # behind the type of the stream
        with contextlib.suppress(BufferReadError):
            while not buffer.eof():
                kind, size = buffer.pull_uint_var(), buffer.pull_uint_var()
                frame = Buffer(data=buffer.pull_bytes(size))
                found = frame.pull_uint_var() if kind == FrameType.GOAWAY else found
        return found


class H3Client:
    """A connection to 127.0.0.1:port. `takes` False leaves windows as they are: a client that
    does not read. `name` is sent as SNI."""

    def __init__(
        self, port: int, timeout_s: float = LIMIT_S, takes: bool = True, window: int = 1 << 20,
        name: str = "a.test", connect: bool = True, host: str = "127.0.0.1", more_hello: int = 0,
        **options: Any,
    ) -> None:  # fmt: skip
        self.to = (host, port)
        self.timeout_s = timeout_s
        self.name = name
        self.configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name=name, verify_mode=0,
            max_stream_data=window, max_data=max(window, 1 << 20), **options,
        )  # fmt: skip
        self.tickets: list[SessionTicket] = []
        self.is_resumed = False
        self.quic = Transport(
            configuration=self.configuration, session_ticket_handler=self.tickets.append
        )
        self.quic.takes = takes
        self.quic.more_hello = more_hello
        self.sock = self.open_socket()
        self.http: Messages | None = None
        self.responses: dict[int, Response] = {}
        self.ended: events.ConnectionTerminated | None = None
        self.packets: list[QuicPacketType] = []  # kinds of the packets that came first
        self.is_ready = False
        self.quic.connect(self.to, now=time.monotonic())
        self.flush()
        if connect:
            self.connect()

    def __enter__(self) -> H3Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self.ended is None:
            self.quic.close(error_code=0x100)
            self.flush()
        self.sock.close()

    def open_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind(("127.0.0.1", 0))
        return sock

    def make_messages(self) -> Messages | None:
        """HTTP/3 with its streams; a caller may replace this and speak for itself."""
        return Messages(self.quic)

    def connect(self) -> None:
        """To the end of the handshake, or of the connection."""
        self.run(lambda: self.is_ready or self.ended is not None)

    def migrate(self) -> None:
        """Go on from another port, as behind a NAT that forgot us."""
        self.sock.close()
        self.sock = self.open_socket()

    @property
    def parted(self) -> int | None:
        """What GOAWAY said."""
        return self.http.parted if self.http is not None else None

    # -- asking ---------------------------------------------------------------------------------
    def ask(
        self, target: str = "/", method: str = "GET", body: bytes | None = None, end: bool = True,
        fields: list[tuple[str, str]] | None = None, host: str = "a.test",
    ) -> int:  # fmt: skip
        """Send a request; with a body or without. Its stream."""
        block = [(":method", method), (":scheme", "https"), (":authority", host), (":path", target)]
        return self.ask_raw(block + (fields or []), body, end)

    def ask_raw(
        self, block: list[tuple[str, str]], body: bytes | None = None, end: bool = True
    ) -> int:
        """The same with a head of the caller's own."""
        assert self.http is not None
        number = self.quic.get_next_available_stream_id()
        self.responses[number] = Response()
        fields = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in block]
        self.http.send_headers(number, fields, end_stream=end and body is None)
        if body is not None:
            self.http.send_data(number, body, end)
        self.flush()
        return number

    def send(self, number: int, body: bytes, end: bool = False) -> None:
        """A piece of a body; what windows do not take waits here."""
        assert self.http is not None
        self.http.send_data(number, body, end)
        self.flush()

    def raw(self, number: int, data: bytes, end: bool = False) -> None:
        """Bytes of the caller's own on a stream."""
        self.responses.setdefault(number, Response())
        self.quic.send_stream_data(number, data, end)
        self.flush()

    def flush(self) -> None:
        for data, to in self.quic.datagrams_to_send(now=time.monotonic()):
            self.sock.sendto(data, to)

    # -- reading --------------------------------------------------------------------------------
    def step(self, most_s: float = 1.0) -> bool:
        """What comes next: a datagram, or a timer. False: the connection is over."""
        if self.ended is not None:
            return False
        now = time.monotonic()
        timer = self.quic.get_timer()
        wait = most_s if timer is None else min(max(timer - now, 0.0), most_s)
        self.sock.settimeout(max(wait, 0.0005))
        try:
            while True:
                data = self.sock.recv(65536)
                self.note_packet(data)
                self.quic.receive_datagram(data, self.to, now=time.monotonic())
                self.sock.settimeout(0.0)
        except (TimeoutError, BlockingIOError):
            pass
        except ConnectionRefusedError:
            pass
        timer = self.quic.get_timer()
        if timer is not None and time.monotonic() >= timer:
            self.quic.handle_timer(now=time.monotonic())
        while (event := self.quic.next_event()) is not None:
            self.note(event)
        self.flush()
        return self.ended is None

    def note_packet(self, data: bytes) -> None:
        if len(self.packets) < 8:
            length = self.configuration.connection_id_length
            self.packets.append(pull_quic_header(Buffer(data=data), length).packet_type)

    def note(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.ConnectionTerminated):
            self.ended = event
        elif isinstance(event, events.HandshakeCompleted):
            self.is_resumed = event.session_resumed
            self.http = self.http or self.make_messages()
            self.is_ready = True
        elif isinstance(event, events.StreamReset) and event.stream_id in self.responses:
            self.responses[event.stream_id].code = event.error_code
        elif isinstance(event, events.StopSendingReceived) and event.stream_id in self.responses:
            self.responses[event.stream_id].stopped = event.error_code
        elif self.http is not None:
            for it in self.http.handle_event(event):
                self.note_message(it)

    def note_message(self, event: Any) -> None:
        response = self.responses.get(event.stream_id)
        if response is None:
            return
        if isinstance(event, HeadersReceived):
            fields = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers]
            if not response.fields and dict(fields).get(":status", "").startswith("1"):
                response.interim.append(int(dict(fields)[":status"]))
            elif not response.fields:
                response.fields = fields
            else:
                response.trailers = fields
        elif isinstance(event, DataReceived):
            response.body += event.data
        response.is_whole |= event.stream_ended

    def run(self, until: Any, limit_s: float | None = None) -> None:
        """Steps until `until()`; AssertionError when it takes too long."""
        limit = time.monotonic() + (limit_s or self.timeout_s)
        while not until():
            assert time.monotonic() < limit, (self.ended, self.responses)
            if not self.step():
                break

    def read(self, number: int) -> Response:
        """The whole answer on a stream, or what came of it before it was cut."""
        response = self.responses[number]
        self.run(lambda: response.is_whole or response.code is not None)
        return response

    def get(self, target: str = "/", **more: Any) -> Response:
        """One request and its answer."""
        return self.read(self.ask(target, **more))

    def get_when_ready(self, target: str = "/", **more: Any) -> Response:
        """The same of a client that was not connected yet."""
        self.connect()
        return self.get(target, **more)

    def wait_closed(self) -> events.ConnectionTerminated | None:
        """Read until the connection ends; what it ended with."""
        self.run(lambda: self.ended is not None)
        return self.ended


class Parts(H3Client):
    """Sends nothing by itself until the server was heard: `parts` are its first datagrams."""

    def __init__(self, port: int, **more: Any) -> None:
        self.parts: list[bytes] = []
        self.is_heard = False
        super().__init__(port, more_hello=LARGE_HELLO, connect=False, **more)
        assert len(self.parts) == 2

    def flush(self) -> None:
        if self.is_heard:
            super().flush()
        elif not self.parts:
            self.parts = [it for it, _ in self.quic.datagrams_to_send(now=time.monotonic())]

    def hear(self, *more: socket.socket) -> None:
        """The server's hello, on whichever socket, without saying anything again: nothing was
        lost."""
        while self.quic.tls.state == State.CLIENT_EXPECT_SERVER_HELLO:
            ready, _, _ = select.select([self.sock, *more], [], [], self.timeout_s)
            assert ready, "nobody has both parts"
            self.quic.receive_datagram(ready[0].recv(65536), self.to, now=time.monotonic())
        self.is_heard = True


__all__ = ["LARGE_HELLO", "H3Client", "Parts", "ProtocolError", "Response"]
