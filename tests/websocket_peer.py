"""The upstream's end of a WebSocket tunnel: it agrees to an upgrade, then it is a bare socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accepted(key: str) -> str:
    """Sec-WebSocket-Accept (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


class Upstream:
    """A bare socket that speaks after a request's head."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        self.port = self.server.getsockname()[1]
        self.made: list[socket.socket] = []

    def take(self) -> tuple[socket.socket, str, dict[str, str]]:
        """(connection, request line, fields) of the next request."""
        sock = self.server.accept()[0]
        sock.settimeout(10)
        self.made.append(sock)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = sock.recv(1)
            assert piece, head
            head += piece
        line, *fields = head.decode().split("\r\n")[:-2]
        return sock, line, {k.lower(): v for k, v in (it.split(": ", 1) for it in fields)}

    def switch(self, more: str = "", accept: str | None = None) -> socket.socket:
        """Take a request and agree to it."""
        sock, _, fields = self.take()
        accept = accepted(fields["sec-websocket-key"]) if accept is None else accept
        sock.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{more}\r\n".encode()
        )
        return sock

    def close(self) -> None:
        for sock in [*self.made, self.server]:
            sock.close()


def assert_ended(sock: socket.socket) -> None:
    """Nothing more comes: an end or a reset, and that before the socket's timeout."""
    with contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""
