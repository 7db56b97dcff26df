"""The process provider: replicas are processes that the master starts, watches and signals.

This is the controller's end of the channel that process/replicas.py describes. Nothing here
waits: orders go out as the socket takes them, events come in by callback.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

MAX_PACKET = 256 * 1024
MOST_FDS = 8
MOST_WAITING = 10_000
LOG_PIECE = 64 * 1024
LINE_BYTES = 1900  # an entry of the error log holds 2048
KEPT_LINES = 200
SAID_LINES = 1000  # a second, of one replica; what it prints beyond that is counted
REST_S = 0.01  # after a full piece: who prints without end is read no faster


class Events(Protocol):
    """Who is told what happened to replicas. fds are his from then on."""

    def on_started(self, id: str, pid: int, fds: list[int]) -> None: ...
    def on_running(self, id: str, pid: int, fds: list[int]) -> None: ...
    def on_listed(self) -> None: ...
    def on_failed(self, id: str, error: str) -> None: ...
    def on_exited(self, id: str, status: int | None) -> None: ...


class ZygoteEvents(Events, Protocol):
    """The same, and what zygotes say of themselves."""

    def on_zygote(self, id: str, state: str, why: str) -> None: ...


class Processes:
    """The channel to the master. `fd` is the seat's replicas_fd, taken over."""

    def __init__(self, loop: AbstractEventLoop, fd: int, events: ZygoteEvents) -> None:
        self._loop = loop
        self._events = events
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque()
        loop.add_reader(fd, self._on_readable)

    def start(self, id: str, order: dict[str, Any]) -> None:
        self._tell({"op": "start", "id": id, **order})

    def fork(self, id: str, zygote: str, order: dict[str, Any]) -> None:
        """A replica out of a zygote: started or failed, as by `start`."""
        self._tell({"op": "fork", "id": id, "zygote": zygote, **order})

    def signal(self, id: str, number: int) -> None:
        """To the whole process group of the replica."""
        self._tell({"op": "signal", "id": id, "signal": number})

    def _tell(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_PACKET or len(self._waiting) >= MOST_WAITING:
            if message["op"] != "signal":
                why = "its order does not fit a packet" if len(data) > MAX_PACKET else "too busy"
                self._loop.call_soon(self._events.on_failed, message["id"], why)
            return
        self._waiting.append(data)
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:  # the master is gone: so are we, soon
                self._waiting.clear()
                break
            self._waiting.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _on_readable(self) -> None:
        for _ in range(64):
            try:
                data, extra, _, _ = self._socket.recvmsg(
                    MAX_PACKET, socket.CMSG_SPACE(4 * MOST_FDS), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, extra = b"", []
            if not data:
                self._loop.remove_reader(self._socket.fileno())
                return
            fds = array.array("i")
            for level, kind, content in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) // 4 * 4])
            self._take(data, list(fds))

    def _take(self, data: bytes, fds: list[int]) -> None:
        message = json.loads(data)
        op, id = message["op"], message.get("id", "")
        if op == "started":
            self._events.on_started(id, message["pid"], fds)
        elif op == "running":
            self._events.on_running(id, message["pid"], fds)
        else:
            for fd in fds:
                os.close(fd)
            if op == "listed":
                self._events.on_listed()
            elif op == "zygote":
                self._events.on_zygote(id, message["state"], message["why"])
            elif op == "failed":
                self._events.on_failed(id, message["error"])
            elif op == "exited":
                self._events.on_exited(id, message["status"])


class LogLines:
    """What one replica prints: its last lines are kept, each goes to `say`.

    fds are the read ends of its stdout and stderr, taken over; at their end they are closed.
    """

    def __init__(self, loop: AbstractEventLoop, fds: list[int], say: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._loop = loop
        self._say = say
        self._parts = dict.fromkeys(fds, b"")
        self._second = 0
        self._said = 0
        self._unsaid = 0
        for fd in fds:
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._on_readable, fd)

    def _on_readable(self, fd: int) -> None:
        try:
            data = os.read(fd, LOG_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = (self._parts[fd] + data).split(b"\n")
        while len(rest) > LINE_BYTES:
            lines.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._parts[fd] = rest
        if not data:
            if rest:
                lines.append(rest)
            self._close(fd)
        elif len(data) == LOG_PIECE:
            self._loop.remove_reader(fd)
            self._loop.call_later(REST_S, self._go_on, fd)
        self._unsaid += max(len(lines) - KEPT_LINES, 0)
        for line in lines[-KEPT_LINES:]:
            text = line[:LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
            text = "".join(it if it.isprintable() else " " for it in text)
            self.lines.append(text)
            self._tell(text)

    def _go_on(self, fd: int) -> None:
        if fd in self._parts:
            self._loop.add_reader(fd, self._on_readable, fd)

    def _tell(self, text: str) -> None:
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._said = second, 0
            if self._unsaid:
                self._say(f"({self._unsaid} lines left out)")
                self._unsaid = 0
        if self._said < SAID_LINES:
            self._said += 1
            self._say(text)
        else:
            self._unsaid += 1

    def _close(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._parts[fd]
        # Not now: libuv forgets it at the end of its turn, and the master has this pipe, too. One
        # that is closed before would be reported for ever.
        self._loop.call_soon(os.close, fd)

    def close(self) -> None:
        """Read what is there yet, then let go. Somebody that the replica left behind may go on
        printing: nobody listens."""
        for fd in list(self._parts):
            self._on_readable(fd)
            if fd in self._parts:
                self._close(fd)
