"""A real mosquitto on a free port, brokers that do as they are told, and packets by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_port

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)


class Mosquitto:
    """A mosquitto below `folder`, without persistence."""

    def __init__(self, folder: Path, more: str = "", port: int = 0) -> None:
        self.folder = folder
        self.more = more
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "mosquitto is missing: .ci/needs test"
        self.folder.mkdir(exist_ok=True)
        conf = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{user}"
            f"max_queued_messages 10000\n{self.more}\n"
        )
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [program, "-v", "-c", str(conf)], stdout=log, stderr=log
            )
        limit = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert time.monotonic() < limit and self.process.poll() is None, self.log
            time.sleep(0.01)

    def stop(self, kill: bool = False) -> None:
        if self.process is not None and self.process.poll() is None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def sealed(papers: Path, more: str = "") -> str:
    """What a mosquitto says that speaks TLS; papers: the fixture's folder."""
    return (f"cafile {papers}/ca.crt\ncertfile {papers}/broker.test.crt\n"
            f"keyfile {papers}/broker.test.key\n{more}")  # fmt: skip


class Broker:
    """A TCP server that answers each CONNECT with `answer` (None: never), then runs `serve`."""

    def __init__(
        self,
        answer: bytes | None = b"\x20\x02\0\0",
        serve: Callable[[Client], None] | None = None,
    ) -> None:
        self.answer = answer
        self.serve = serve
        self.connects: list[bytes] = []
        self.clients: list[Client] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), sock:
            client = Client(sock=sock)
            self.clients.append(client)
            _, raw = client.read_raw()
            self.connects.append(raw)
            if self.answer is not None:
                sock.sendall(self.answer)
            if self.serve is not None:
                self.serve(client)
            else:
                while sock.recv(65536):
                    pass

    def close(self) -> None:
        self.listener.close()


def length(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind << 4 | flags]) + length(len(body)) + body


def string(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return struct.pack("!H", len(data)) + data


def connect(
    id: str = "c1", user: str | None = None, password: str | bytes | None = None,
    version: int = 4, keepalive: int = 60, clean: bool = True,
    will: tuple[str, bytes] | None = None, properties: bytes = b"", will_qos: int = 0,
) -> bytes:
    flags = clean << 1 | (user is not None) << 7 | (password is not None) << 6
    if will:
        flags |= 4 | will_qos << 3
    body = string("MQTT") + bytes([version, flags]) + struct.pack("!H", keepalive)
    if version == 5:
        body += length(len(properties)) + properties
    body += string(id)
    if will:
        body += (b"\0" if version == 5 else b"") + string(will[0]) + string(will[1])
    if user is not None:
        body += string(user)
    if password is not None:
        body += string(password)
    return packet(CONNECT, body)


def publish(
    topic: str, payload: bytes = b"", qos: int = 0, id: int = 1, version: int = 4,
    properties: bytes = b"", retain: bool = False,
) -> bytes:
    body = string(topic) + (struct.pack("!H", id) if qos else b"")
    if version == 5:
        body += length(len(properties)) + properties
    return packet(PUBLISH, body + payload, qos << 1 | retain)


def subscribe(*filters: str, id: int = 1, version: int = 4, qos: int = 0) -> bytes:
    body = struct.pack("!H", id) + (b"\0" if version == 5 else b"")
    return packet(SUBSCRIBE, body + b"".join(string(it) + bytes([qos]) for it in filters), 2)


class Client:
    """One connection, packets by hand."""

    def __init__(self, port: int = 0, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.settimeout(10)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> Client:
        self.sock.sendall(b"".join(data))
        return self

    def exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = self.sock.recv(n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read_raw(self) -> tuple[int, bytes]:
        """(first byte, the whole packet). EOFError at the end."""
        raw = self.exactly(1)
        n = shift = 0
        while True:
            raw += self.exactly(1)
            n |= (raw[-1] & 127) << shift
            shift += 7
            if raw[-1] < 128:
                break
        return raw[0], raw + self.exactly(n)

    def read(self) -> tuple[int, bytes]:
        """(type, body)."""
        first, raw = self.read_raw()
        at = 1
        while raw[at] & 128:
            at += 1
        return first >> 4, raw[at + 1 :]

    def connect(self, *words: str, **more) -> tuple[int, bytes]:
        self.send(connect(*words, **more))
        return self.read()

    def is_closed(self) -> bool:
        """Everything that still comes is dropped."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True
