"""`Connection` of aioquic: one client's QUIC connection with HTTP/3 on it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from aioquic.h3.events import DataReceived
from aioquic.quic import events
from aioquic.quic.connection import END_STATES

from proxy.quic.engine import Code
from proxy.quic.messages import Messages, TrailersReceived

if TYPE_CHECKING:
    from proxy.quic.engine import Address, Client, Fields, Host
    from proxy.quic.transport import Transport

NOT_REQUEST = 3  # bits of a stream's number: a request's has none of them
LOW_BYTES = 32 * 1024  # a stream may be written to again when no more than this is unsent
SAFE = (b"GET", b"HEAD", b"OPTIONS")  # RFC 9110 §9.2.1: done twice, it is as done once
EARLY = b"early-data"  # RFC 8470 §5.1


class Talk:
    """`Connection` of aioquic."""

    def __init__(self, transport: Transport, host: Host, address: Address) -> None:
        self.transport = transport
        self.host = host
        self.address = address
        self.timer: Any = None
        self.begun_s = 0.0
        self.local = b""
        self.messages: Messages | None = None
        self.client: Client | None = None
        self.waiting: set[int] = set()  # streams that are to be told when they are writable
        self.closing: int | None = None  # the code to close with, when all is sent
        self.is_over = False
        self.headless: dict[int, float] = {}  # request streams without a head yet, since when
        # what must not be done twice, and came as early data: until the handshake is over
        self.early: dict[int, list[Any]] = {}

    def facts(self) -> tuple[Any, ...]:
        return self.transport.facts()

    # -- what the host says ---------------------------------------------------------------------
    def receive(self, data: bytes, address: Address, now_s: float) -> None:
        try:
            self.transport.receive_datagram(data, address, now_s)
        except Exception as error:  # noqa: BLE001  a fault of the library costs one connection
            self._break(error)
        self._tell()

    def datagrams(self, now_s: float) -> list[tuple[bytes, Address]]:
        if self.is_over:
            return []
        try:
            datagrams = self.transport.datagrams_to_send(now_s)
            if self.closing is not None and not self.transport.has_unsent():
                self.transport.close(self.closing)  # behind what it is to know first: GOAWAY
                datagrams += self.transport.datagrams_to_send(now_s)
            return datagrams
        except Exception as error:  # noqa: BLE001
            self._break(error)
            return []
        finally:
            self._tell()

    def deadline_s(self) -> float | None:
        if self.is_over:
            return None
        deadline_s = self.transport.get_timer()
        for begun_s in self.headless.values():  # the first is the oldest
            limit_s = begun_s + self.transport.settings.handshake_s
            return limit_s if deadline_s is None else min(deadline_s, limit_s)
        return deadline_s

    def on_deadline(self, now_s: float) -> None:
        try:
            limit_s = now_s - self.transport.settings.handshake_s
            for stream in [it for it, begun_s in self.headless.items() if begun_s <= limit_s]:
                del self.headless[stream]
                self.reset(stream, Code.REQUEST_REJECTED)
            timer_s = self.transport.get_timer()
            if timer_s is not None and timer_s <= now_s:
                self.transport.handle_timer(now_s)
        except Exception as error:  # noqa: BLE001
            self._break(error)
        self._tell()

    def _break(self, error: Exception) -> None:
        logging.getLogger("headrace").error("QUIC: %r", error)
        self._end()

    # -- what the peer says ---------------------------------------------------------------------
    def _tell(self) -> None:
        """Events go to the client, then it is told which streams have room."""
        transport = self.transport
        while not self.is_over and (event := transport.next_event()) is not None:
            self._act(event)
        client = self.client
        if client is None:
            return
        if not self.is_over:
            address = transport.get_peer_address()
            if address is not None and address != self.address:
                self.address = address
                client.on_moved(address[0], address[1])
            for stream in [it for it in self.waiting if self.unsent(it) <= LOW_BYTES]:
                self.waiting.discard(stream)
                client.on_writable(stream)
        if not self.is_over and transport._state in END_STATES:
            self._lose_client()  # what follows is but the last word, said again if need be
        else:
            client.settle()

    def _act(self, event: events.QuicEvent) -> None:
        host = self.host
        if isinstance(event, events.ConnectionIdIssued):
            host.add_id(event.connection_id, self)
        elif isinstance(event, events.ConnectionIdRetired):
            host.remove_id(event.connection_id)
        elif isinstance(event, events.ProtocolNegotiated):
            if self.transport.tls.early_data_accepted:
                self._begin()
        elif isinstance(event, events.HandshakeCompleted):
            host.on_handshake(self)
            if self.client is None:
                self._begin()
            else:
                self.client.on_confirmed()
                self._tell_early(self.client)
        elif isinstance(event, events.ConnectionTerminated):
            self._end()
        elif self.messages is not None and self.client is not None:
            is_headless = isinstance(event, events.StreamReset) and self._is_headless(event)
            for it in self.messages.handle_event(event):
                self._tell_message(self.client, it)
            if (
                isinstance(event, events.StreamDataReceived)
                and not event.stream_id & NOT_REQUEST
                and self.messages.lacks_head(event.stream_id)
            ):
                self.headless.setdefault(event.stream_id, time.monotonic())
            elif isinstance(event, events.StreamReset | events.StopSendingReceived):
                self._take_back(self.client, event, is_headless)

    def _begin(self) -> None:
        """HTTP/3 from here on."""
        self.messages = Messages(self.transport, self.transport.settings.most_head)
        self.address = self.transport.get_peer_address() or self.address
        self.client = self.host.on_begun(self, self.address)

    def _is_headless(self, event: events.StreamReset) -> bool:
        """Is nothing known of that request yet?"""
        stream, messages = event.stream_id, self.messages
        found = self.transport._streams.get(stream)
        if stream & NOT_REQUEST or found is None or messages is None:
            return False
        is_untouched = stream not in messages._stream and not found.sender._buffer_stop
        return is_untouched or messages.lacks_head(stream)

    def _take_back(self, client: Client, event: Any, is_headless: bool) -> None:
        """The client wants no answer, or says no more."""
        stream = event.stream_id
        if isinstance(event, events.StreamReset):
            self.headless.pop(stream, None)
        if self.early.pop(stream, None) is not None:
            self.forget(stream)
            self.reset(stream, Code.REQUEST_CANCELLED)
        elif is_headless:  # RFC 9114 §4.1
            self.reset(stream, Code.REQUEST_INCOMPLETE)
        client.on_reset(stream)

    def _waits(self, event: Any) -> bool:
        """Early data can be sent again by anybody who saw it: what is not safe waits for the
        handshake's end (RFC 8470 §3), and of the rest upstreams are told (§5.1)."""
        stream, fields = event.stream_id, getattr(event, "headers", ())
        if stream in self.early:
            self.early[stream].append(event)
            if isinstance(event, DataReceived):
                held = self.transport.held
                held[stream] = held.get(stream, 0) + len(event.data)
            return True
        if isinstance(event, DataReceived | TrailersReceived):
            return False
        if all(value in SAFE for name, value in fields if name == b":method"):
            if all(name != EARLY for name, _ in fields):
                event.headers = [*fields, (EARLY, b"1")]
            return False
        self.early[stream] = [event]
        return True

    def _tell_early(self, client: Client) -> None:
        """The handshake is over: what waited for that comes now."""
        early, self.early = self.early, {}
        for stream, waiting in early.items():
            self.hold(stream, 0)
            for event in waiting:
                if not self.is_over:
                    self._tell_message(client, event)

    def _tell_message(self, client: Client, event: Any) -> None:
        stream = event.stream_id
        if not self.transport._handshake_complete and self._waits(event):
            self.headless.pop(stream, None)
            return
        if isinstance(event, DataReceived):
            client.on_body(stream, event.data, event.stream_ended)
        elif isinstance(event, TrailersReceived):
            client.on_trailers(stream, event.headers, event.stream_ended)
        else:
            self.headless.pop(stream, None)
            client.on_head(stream, event.headers, event.stream_ended)

    def abandon(self) -> None:
        """It ends without a word."""
        self._end()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.host.on_over(self)
        self._lose_client()

    def _lose_client(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.on_closed()
            client.settle()

    # -- what the client says -------------------------------------------------------------------
    def send_head(self, stream: int, fields: Fields, is_end: bool) -> bool:
        if self.messages is None or self.transport.sender_of(stream) is None:
            return False
        self.messages.send_headers(stream, fields, is_end)
        self.host.will_send(self)
        return True

    def send_body(self, stream: int, data: bytes, is_end: bool) -> bool:
        if self.messages is None or self.transport.sender_of(stream) is None:
            return False
        if data or not is_end:
            self.messages.send_data(stream, data, is_end)
        else:  # a FIN alone: no DATA frame for nothing
            self.transport.send_stream_data(stream, b"", True)
            self.messages.end_sending(stream)
        self.host.will_send(self)
        return True

    def unsent(self, stream: int) -> int:
        found = self.transport._streams.get(stream)
        if found is None or found.sender._reset_error_code is not None:
            return 0
        return found.sender._buffer_stop - found.sender.highest_offset

    def sent(self, stream: int) -> int:
        found = self.transport._streams.get(stream)
        return 0 if found is None else found.sender.highest_offset

    def tell_when_writable(self, stream: int) -> None:
        self.waiting.add(stream)

    def hold(self, stream: int, count: int) -> None:
        if count:
            self.transport.held[stream] = count
        else:
            self.transport.held.pop(stream, None)
        self.host.will_send(self)

    def reset(self, stream: int, code: int) -> None:
        self.stop(stream, code)
        if self.transport.sender_of(stream) is not None or self.unsent(stream):
            self.transport.reset_stream(stream, code)
        if self.messages is not None:
            self.messages.end_sending(stream)

    def stop(self, stream: int, code: int) -> None:
        found = self.transport._streams.get(stream)
        if found is not None and not found.receiver.is_finished:
            found.receiver.stop(code)
            if self.messages is not None:
                self.messages.cancel(stream)
        self.host.will_send(self)

    def forget(self, stream: int) -> None:
        """Its request is over on our side."""
        self.waiting.discard(stream)
        self.hold(stream, 0)

    def go_away(self, stream: int) -> None:
        if self.messages is not None and self.transport._close_event is None:
            self.messages.go_away(stream)
            self.host.will_send(self)

    def close(self, code: int, *, is_sent_first: bool) -> None:
        if is_sent_first:
            self.closing = code
        else:
            self.transport.close(code)
        self.host.will_send(self)
