"""Both ends of long-lived connections: a WebSocket echo and a broker that takes all, and clients.

Both servers and clients run on the load's core and look at nothing: what they say is counted by
its length alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from peers import LOAD_CORE, Process, free_port

PAYLOAD = 100
ASKED = 106  # a masked frame of PAYLOAD bytes: 2 of head, 4 of mask
ANSWERED = 102
MASKED = b"\x82\xe4" + bytes(4) + b"x" * PAYLOAD
PLAIN = b"\x82\x64" + b"x" * PAYLOAD
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CONNACK = b"\x20\x02\x00\x00"
PUBLISH = b"\x30" + bytes([2 + 5 + 64]) + b"\x00\x05a/b/c" + b"x" * 64
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
# GET / with authority "a", by the static table alone, ending stream 1
GET = b"\0\0\6\1\5\0\0\0\1" + b"\x82\x86\x84\x41\x01a"


class Served(Process):
    """This file as a server, in a process of its own."""

    name = "echo"
    core = LOAD_CORE

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = {"plain": free_port()}

    def command(self) -> list[str]:
        return [sys.executable, __file__, self.name, str(self.ports["plain"])]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


class Echo(Served):
    """Answers an upgrade, then each frame with one as long."""


class BrokerSink(Served):
    """Says CONNACK to a CONNECT, and takes what comes."""

    name = "sink"


def serve(name: str, port: int) -> None:
    """Until it is killed."""
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    waiting = selectors.EpollSelector()
    waiting.register(listening, selectors.EVENT_READ)
    begun: dict[int, int] = {}  # descriptor → bytes of a frame that is not whole
    while True:
        for key, _ in waiting.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listening:
                accepted, _ = listening.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(accepted, selectors.EVENT_READ)
                continue
            try:
                data = sock.recv(65536)
                if data.startswith(b"GET") and b"websocket" not in data:
                    sock.sendall(EMPTY)  # is anybody there?
                elif data and sock.fileno() not in begun:
                    begun[sock.fileno()] = 0
                    sock.sendall(ACCEPTED if data.startswith(b"GET") else CONNACK)
                elif data and name == "echo":
                    count, begun[sock.fileno()] = divmod(begun[sock.fileno()] + len(data), ASKED)
                    if count:
                        sock.sendall(PLAIN * count)
            except OSError:
                data = b""
            if not data:
                begun.pop(sock.fileno(), None)
                waiting.unregister(sock)
                sock.close()


def upgraded(port: int, path: str, count: int) -> list[socket.socket]:
    """Open WebSockets. OSError when one is refused."""
    found = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(UPGRADE.format(path=path).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(4096)
            if not piece:
                raise OSError("closed before an answer")
            data += piece
        if not data.startswith(b"HTTP/1.1 101"):
            raise OSError(f"no WebSocket: {data[:100]!r}")
        found.append(sock)
    return found


idle_websockets = upgraded


def idle_h2(port: int, path: str, count: int) -> list[socket.socket]:
    """HTTP/2 connections, each of which has had one answer."""
    found = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(PREFACE + GET)
        data = b""
        while b"\1\5\0\0\0\1" not in data and b"\0\1\0\0\0\1" not in data:
            piece = sock.recv(4096)
            if not piece:
                raise OSError("closed before an answer")
            data += piece
        found.append(sock)
    return found


@contextlib.contextmanager
def on_load_core() -> Iterator[None]:
    """The clients run there, this process being one of them for so long."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@on_load_core()
def talk(port: int, path: str, count: int, seconds: float) -> int:
    """Messages there and back by `count` WebSockets, each of which says one at a time."""
    waiting = selectors.EpollSelector()
    sockets = upgraded(port, path, count)
    left = dict.fromkeys(sockets, ANSWERED)
    for sock in sockets:
        waiting.register(sock, selectors.EVENT_READ)
        sock.sendall(MASKED)
    done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in waiting.select(1):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(65536)
            if not data:
                raise OSError("a WebSocket was closed")
            left[sock] -= len(data)
            if left[sock] <= 0:
                done += 1
                left[sock] += ANSWERED
                sock.sendall(MASKED)
    for sock in sockets:
        sock.close()
    return done


@on_load_core()
def publish(port: int, count: int, seconds: float) -> int:
    """Messages sent, one write each, by `count` clients in turn."""
    sockets = []
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = b"client-%04d" % number
        rest = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
        sock.sendall(b"\x10" + bytes([len(rest)]) + rest)
        if sock.recv(4) != CONNACK:
            raise OSError("no CONNACK")
        sockets.append(sock)
    done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sock in sockets:
            sock.sendall(PUBLISH)
        done += count
        time.sleep(0.0005)  # one message at a time is what a sensor says
    for sock in sockets:
        sock.close()
    return done


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
