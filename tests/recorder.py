"""An upstream that answers as told and remembers what it was sent, byte for byte.

Plain sockets and threads, no HTTP library: what arrives is shown as it arrived.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: recorder\r\n\r\nok"
HEAD_LIMIT_BYTES = 1 << 20


@dataclass
class Recorded:
    """One request as the upstream saw it. `connection` counts from 1 in order of accepting."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes
    connection: int
    trailers: list[tuple[str, str]] = field(default_factory=list)
    is_whole: bool = True

    def get(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def get_all(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [v for n, v in self.headers if n.lower() == name.lower()]


class Close(bytes):
    """An answer after which the upstream closes the connection."""


class Reset(bytes):
    """An answer after which the upstream resets the connection (RST)."""


Answer = bytes | Iterable[bytes] | None
AnswerMaker = Callable[[Recorded], Answer]


def answer(
    body: bytes = b"ok", status: int = 200, headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A well-formed answer with Content-Length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Recorder:
    """Listens on 127.0.0.1 (a free port) or on a Unix socket until `close`.

    `answer` may be bytes, an iterable of pieces (each its own send), a callable of Recorded that
    returns either, or a list taken one by one (the last one stays). None closes without a word.
    """

    def __init__(self, answer: object = OK, path: str | None = None) -> None:
        self.answer: object = answer
        self.requests: list[Recorded] = []
        self.connections = 0
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._is_closed = False
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.port: int = self._listener.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(512)
            self.port, self.address = 0, f"unix:{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    # -- for the test ---------------------------------------------------------------------------
    def wait(self, count: int, timeout_s: float = 5.0) -> list[Recorded]:
        """The requests once there are `count` of them; AssertionError after timeout_s."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.requests) >= count, timeout_s)
        assert done, f"{len(self.requests)} of {count} requests reached the upstream"
        return self.requests

    @property
    def last(self) -> Recorded:
        """The latest request."""
        return self.requests[-1]

    def drop(self) -> None:
        """Close every open connection, keep listening."""
        with self._changed:
            sockets = list(self._open)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, close everything."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    # -- inside ---------------------------------------------------------------------------------
    def _accept(self) -> None:
        while not self._is_closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                number = self.connections
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        rest = b""
        try:
            while True:
                request, rest = _read_request(sock, rest, number)
                if request is None:
                    return
                with self._changed:
                    self.requests.append(request)
                    count = len(self.requests)
                    self._changed.notify_all()
                if not self._send(sock, request, count) or not request.is_whole:
                    return
        except OSError:
            return
        finally:
            with self._changed:
                self._open.discard(sock)
            sock.close()

    def _send(self, sock: socket.socket, request: Recorded, count: int) -> bool:
        """Send the answer; True when the connection stays open."""
        told = self.answer
        if isinstance(told, list):
            told = told[min(count, len(told)) - 1]
        if callable(told):
            told = told(request)
        if told is None:
            return False
        pieces: Iterable[bytes] = [told] if isinstance(told, bytes) else told  # type: ignore
        for piece in pieces:
            sock.sendall(piece)
            if isinstance(piece, Reset):
                # SO_LINGER of 0 s: close sends RST instead of FIN
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if isinstance(piece, Close | Reset):
                return False
        return True


def _more(sock: socket.socket, data: bytes) -> bytes:
    piece = sock.recv(65536)
    if not piece:
        raise EOFError
    return data + piece


def _fields(lines: list[bytes]) -> list[tuple[str, str]]:
    pairs = (line.decode("latin-1").partition(":") for line in lines if line)
    return [(name, value.strip()) for name, _, value in pairs]


def _read_request(
    sock: socket.socket, data: bytes, number: int
) -> tuple[Recorded | None, bytes]:
    """One request from the wire and what follows it; None at the end of the connection."""
    try:
        while b"\r\n\r\n" not in data:
            if len(data) > HEAD_LIMIT_BYTES:
                return None, b""
            data = _more(sock, data)
    except EOFError:
        return None, b""
    head, _, data = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    method, _, rest = lines[0].decode("latin-1").partition(" ")
    target, _, version = rest.rpartition(" ")
    request = Recorded(method, target, version, _fields(lines[1:]), b"", head, number)
    try:
        if (request.get("transfer-encoding") or "").lower().endswith("chunked"):
            data = _read_chunks(sock, data, request)
        else:
            length = int(request.get("content-length") or 0)
            while len(data) < length:
                request.body = data
                data = _more(sock, data)
            request.body, data = data[:length], data[length:]
    except EOFError:
        request.is_whole = False
        data = b""
    return request, data


def _read_chunks(sock: socket.socket, data: bytes, request: Recorded) -> bytes:
    body = bytearray()
    try:
        while True:
            while b"\r\n" not in data:
                data = _more(sock, data)
            size_line, _, data = data.partition(b"\r\n")
            size = int(size_line.split(b";")[0], 16)
            if size == 0:
                break
            while len(data) < size + 2:
                data = _more(sock, data)
            body += data[:size]
            data = data[size + 2 :]
        while not data.startswith(b"\r\n"):
            while b"\r\n" not in data:
                data = _more(sock, data)
            line, _, data = data.partition(b"\r\n")
            request.trailers += _fields([line])
        while len(data) < 2:
            data = _more(sock, data)
        return data[2:]
    finally:
        request.body = bytes(body)
