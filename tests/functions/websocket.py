"""A WebSocket client for tests: wsproto speaks, so that two implementations must agree."""

from __future__ import annotations

import socket
import struct

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)  # fmt: skip


class WebSocketClient:
    """sock: connected. Asks for a WebSocket at `target`; `first` is what was said to that."""

    def __init__(self, sock: socket.socket, target: str = "/", **more) -> None:
        self.sock = sock
        self.sock.settimeout(20)
        self.speaker = WSConnection(ConnectionType.CLIENT)
        self.events: list[Event] = []
        self.whole = b""
        self.say(Request(host="h", target=target, **more))
        self.first = self.hear()

    def __enter__(self) -> WebSocketClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, event: Event) -> None:
        self.sock.sendall(self.speaker.send(event))

    def hear(self) -> Event:
        """The next event; OSError, or ConnectionError at the end."""
        while not self.events:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("it was closed without a word")
            self.speaker.receive_data(data)
            self.events += self.speaker.events()
        return self.events.pop(0)

    def text(self, words: str) -> None:
        self.say(TextMessage(words))

    def message(self) -> str | bytes:
        """The next whole message."""
        whole: str | bytes | None = None
        while True:
            event = self.hear()
            assert isinstance(event, TextMessage | BytesMessage), event
            data = event.data if isinstance(event, TextMessage) else bytes(event.data)
            whole = data if whole is None else whole + data  # type: ignore[operator]
            if event.message_finished:
                return whole

    def code(self) -> int:
        """Of the close frame that comes next."""
        event = self.hear()
        assert isinstance(event, CloseConnection), event
        return event.code


def frame(opcode: int, data: bytes = b"", first: int = 0x80, is_masked: bool = True) -> bytes:
    """A client's frame; first: its highest bits."""
    n = len(data)
    mask = b"\x01\x02\x03\x04"
    bit = 0x80 if is_masked else 0
    if n < 126:
        head = struct.pack("!BB", first | opcode, bit | n)
    elif n < 65536:
        head = struct.pack("!BBH", first | opcode, bit | 126, n)
    else:
        head = struct.pack("!BBQ", first | opcode, bit | 127, n)
    if not is_masked:
        return head + data
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


__all__ = [
    "AcceptConnection", "BytesMessage", "CloseConnection", "Ping", "Pong", "RejectConnection",
    "RejectData", "TextMessage", "WebSocketClient", "frame",
]  # fmt: skip
