"""An upstream that speaks HTTP/2 by its own bytes: what it says is whatever a test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpack import Decoder

PREFACE_BYTES = 24
HEADERS, RST, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
END_HEADERS = 4


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(
        ">I", number) + payload  # fmt: skip


@dataclass
class Secured:
    """What a handshake settled; `certificate` is the client's, as ssl tells it."""

    version: str | None
    cipher: str
    protocol: str | None
    certificate: Any
    is_resumed: bool | None


class H2Upstream:
    """Answers each HEADERS frame with the bytes that `answer(stream)` gives. `asked` counts them,
    `heads` are their fields, `peers` whence connections came, `secured` what `tls` settled."""

    def __init__(
        self, answer: Callable[[int], bytes], first: bytes = b"", tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.first, self.tls, self.asked = answer, first, tls, 0
        self.heads: list[list[tuple[str, str]]] = []
        self.secured: list[Secured] = []
        self.peers: list[str] = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self.sock.accept()
                self.peers.append(peer[0])
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        data = b""
        is_begun = False
        decoder = Decoder()
        with contextlib.suppress(OSError), self.secure(connection) as link:
            link.sendall(frame(SETTINGS) + self.first)
            while piece := link.recv(65536):
                data += piece
                if not is_begun and len(data) >= PREFACE_BYTES:
                    is_begun, data = True, data[PREFACE_BYTES:]
                while is_begun and len(data) >= 9 and len(data) >= 9 + int.from_bytes(
                        data[:3], "big"):  # fmt: skip
                    kind, number = data[3], struct.unpack(">I", data[5:9])[0]
                    size = 9 + int.from_bytes(data[:3], "big")
                    if kind == HEADERS:
                        self.heads.append([(str(n), str(v)) for n, v in decoder.decode(
                            data[9:size])])  # fmt: skip
                        self.asked += 1
                        link.sendall(self.answer(number))
                    data = data[size:]

    def secure(self, connection: socket.socket) -> socket.socket:
        if self.tls is None:
            return connection
        link = self.tls.wrap_socket(connection, server_side=True)
        self.secured.append(Secured(
            link.version(), (link.cipher() or ("",))[0], link.selected_alpn_protocol(),
            link.getpeercert(), link.session_reused))  # fmt: skip
        return link

    def close(self) -> None:
        """No more connections; those that are go on."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
