"""A client that sends the bytes it is given and reads answers strictly, one after another."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass


@dataclass
class Answered:
    """One answer. `is_whole` is False when the connection ended before the body did."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes
    is_whole: bool = True
    trailers: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def get_all(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [v for n, v in self.headers if n.lower() == name.lower()]

    @property
    def text(self) -> str:
        """The body as Latin-1, which never fails."""
        return self.body.decode("latin-1")


class Closed(Exception):
    """The connection ended where an answer was due; `.data` holds what had come of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"closed after {data[:200]!r}")
        self.data = data


class RawClient:
    """One connection to 127.0.0.1:port (or to a Unix socket path), timeouts in seconds."""

    def __init__(
        self,
        port: int = 0,
        path: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
    ) -> None:
        if path is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout_s)
            self.sock.connect(path)
        else:
            self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name)
        self._data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def send(self, data: bytes | str) -> RawClient:
        """Send as is."""
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def send_split(self, data: bytes, at: int, pause_s: float = 0.002) -> RawClient:
        """Send in two pieces, cut before byte `at`."""
        self.sock.sendall(data[:at])
        time.sleep(pause_s)
        self.sock.sendall(data[at:])
        return self

    def get(self, target: str = "/", **headers: str) -> Answered:
        """GET with Host: localhost and these headers (underscores mean hyphens)."""
        return self.ask("GET", target, **headers)

    def ask(self, method: str, target: str = "/", body: bytes = b"", **headers: str) -> Answered:
        """Any request; a body brings Content-Length unless the headers say otherwise."""
        fields = {"Host": "localhost"}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        if body and "Content-Length" not in fields and "Transfer-Encoding" not in fields:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.read(method)

    def read(self, method: str = "GET", skip_interim: bool = True) -> Answered:
        """The next answer (past 1xx, but for 101). Raises Closed when none comes."""
        while True:
            answer = self._read_one(method)
            if not skip_interim or answer.status == 101 or answer.status >= 200:
                return answer

    def read_all(self) -> bytes:
        """Everything until the other side closes."""
        data, self._data = self._data, b""
        while True:
            piece = self._recv()
            if not piece:
                return data
            data += piece

    def is_closed(self, timeout_s: float = 5.0) -> bool:
        """True once the other side has closed with nothing more said; False at the timeout."""
        self.sock.settimeout(timeout_s)
        try:
            return not self._data and self._recv() == b""
        except TimeoutError:
            return False

    # -- inside ---------------------------------------------------------------------------------
    def _recv(self) -> bytes:
        try:
            return self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            piece = self._recv()
            if not piece:
                raise Closed(self._data)
            self._data += piece
        head, _, self._data = self._data.partition(mark)
        return head

    def _exactly(self, count: int) -> tuple[bytes, bool]:
        pieces, have = [self._data], len(self._data)
        while have < count:
            piece = self._recv()
            if not piece:
                self._data = b""
                return b"".join(pieces), False
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self._data = data[count:]
        return data[:count], True

    def _read_one(self, method: str) -> Answered:
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        assert version in ("HTTP/1.1", "HTTP/1.0"), lines[0]
        status, _, reason = rest.partition(" ")
        pairs = [line.partition(":") for line in lines[1:]]
        assert all(colon for _, colon, _ in pairs), lines
        headers = [(name, value.strip()) for name, _, value in pairs]
        answer = Answered(int(status), reason, headers, b"", head)
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        length = answer.get("content-length")
        if (answer.get("transfer-encoding") or "").lower() == "chunked":
            assert length is None, "both Content-Length and Transfer-Encoding"
            self._read_chunks(answer)
        elif length is not None:
            answer.body, answer.is_whole = self._exactly(int(length))
        elif not (method == "CONNECT" and answer.status < 300):
            answer.body = self.read_all()  # RFC 9112 §6.3: to the end of the connection
        return answer

    def _read_chunks(self, answer: Answered) -> None:
        body = bytearray()
        try:
            while True:
                size = int(self._until(b"\r\n"), 16)
                if size == 0:
                    break
                piece, is_whole = self._exactly(size)
                body += piece
                if not is_whole:
                    raise Closed(bytes(body))
                assert self._until(b"\r\n") == b"", "chunk longer than its size"
            trailers = []
            while line := self._until(b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                trailers.append((name, value.strip()))
            answer.trailers = tuple(trailers)
        except Closed:
            answer.is_whole = False
        answer.body = bytes(body)
