"""Keeps one function at its scale: starts replicas, waits until they answer, restarts what dies,
and stops what is too many or of an older version – new ones first, old ones drained.

    STARTING → READY → DRAINING → STOPPING → gone      (from any state: exited → gone)

Only READY replicas are published. Everything happens on the controller's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from typing import TYPE_CHECKING, Any, Protocol

from proxy.functions.providers.process import LogLines
from proxy.functions.ready import wait_ready

if TYPE_CHECKING:
    from proxy.functions.model import Version
    from proxy.functions.zygotes import Zygotes

STARTING, READY, DRAINING, STOPPING = "starting", "ready", "draining", "stopping"

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 10.0  # who lived so long begins anew with the pauses
KILL_AFTER_S = 10.0  # from TERM to KILL
LAST_WORDS = 5
PATH_BYTES = 100  # of a Unix socket


class House(Protocol):
    """What a keeper needs of the controller."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def processes(self) -> Zygotes: ...

    def next_serial(self) -> int: ...
    def publish(self, name: str) -> None: ...
    async def drain(self, replica: Replica, timeout_ms: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...


class Replica:
    """One running copy. Its id says all that a new controller must know to adopt it:
    `NAME.NAMESPACE/VERSION/FINGERPRINT/SERIAL/PORT/SOCKET`. address: where it answered, once it
    did."""

    __slots__ = (
        "address", "born_s", "fingerprint", "holder", "id", "log", "name", "pid", "port", "ready_s",
        "serial", "socket", "state", "task",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        """ValueError: this is no id of ours."""
        function, version, fingerprint, serial, port, path = id.split("/", 5)
        self.id = id
        self.name = f"{function}/{version}"
        self.fingerprint = fingerprint
        self.serial = int(serial)
        self.port = int(port)
        self.socket = path
        self.state = STARTING
        self.address = ""
        self.pid = 0
        self.born_s = time.monotonic()
        self.ready_s = 0.0
        self.holder: socket.socket | None = None  # keeps the port ours until the replica listens
        self.log: LogLines | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        return f"{self.name}/{self.serial}"

    @property
    def addresses(self) -> list[str]:
        return [f"unix:{self.socket}", f"127.0.0.1:{self.port}"]

    def row(self) -> dict[str, Any]:
        """For whoever wants to look."""
        return {
            "id": self.id, "state": self.state, "pid": self.pid, "address": self.address,
            "log": list(self.log.lines) if self.log else [],
        }  # fmt: skip

    def release(self) -> None:
        """Let go of the port's reservation."""
        if self.holder is not None:
            self.holder.close()
            self.holder = None

    def forget_files(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.socket)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.socket))


class Keeper:
    """One function, wanted or (wanted is None) on its way out."""

    def __init__(self, name: str, house: House) -> None:
        self.name = name
        self.house = house
        self.wanted: Version | None = None
        self.fingerprint = ""
        self.replicas: dict[str, Replica] = {}
        self._failures = 0
        self._is_port_free = False  # the next replica finds its port unreserved
        self._retry: asyncio.TimerHandle | None = None

    def want(self, function: Version | None) -> None:
        """This is how the function shall be from now on."""
        fingerprint = function.fingerprint if function else ""
        if fingerprint != self.fingerprint:
            self._failures = 0
            self._is_port_free = False
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
        self.wanted, self.fingerprint = function, fingerprint
        self.keep()

    @property
    def scale(self) -> int:
        """How many there shall be."""
        it = self.wanted
        return max(it.scale.min_scale, it.scale.initial_scale) if it else 0

    def ready(self) -> list[Replica]:
        return [it for it in self.replicas.values() if it.state == READY]

    def keep(self) -> None:
        """Do what is to be done for the wanted scale and version."""
        mine = [
            it for it in self.replicas.values()
            if it.fingerprint == self.fingerprint and it.state in (STARTING, READY)
        ]  # fmt: skip
        scale = self.scale
        if self._retry is None:
            for _ in range(scale - len(mine)):
                self._start()
        ready = [it for it in mine if it.state == READY]
        if len(ready) >= scale:  # until then whoever is there of an old version goes on
            keep = ready[:scale]
            for replica in list(self.replicas.values()):
                if replica not in keep:
                    self._stop(replica)

    def adopt(self, replica: Replica, pid: int, fds: list[int]) -> None:
        """It ran before this controller did."""
        self.replicas[replica.id] = replica
        self.on_started(replica, pid, fds)

    # -- births ---------------------------------------------------------------------------------
    def _start(self) -> None:
        function = self.wanted
        assert function is not None
        try:
            folder = tempfile.mkdtemp(prefix="headrace-fn-")
            if len(os.fsencode(folder)) > PATH_BYTES:
                os.rmdir(folder)
                folder = tempfile.mkdtemp(prefix="headrace-fn-", dir="/tmp")
            holder = hold_port()
        except OSError as error:
            self.house.warn(f"function {self.name}: no address for a replica: {error}")
            self._on_failure(was_ready=False)
            return
        port = holder.getsockname()[1]
        path = os.path.join(folder, "s")
        serial = self.house.next_serial()
        replica = Replica(f"{self.name}/{self.fingerprint}/{serial}/{port}/{path}")
        if self._is_port_free:
            holder.close()
        else:
            replica.holder = holder
        self.replicas[replica.id] = replica
        self.house.processes.start(replica.id, function.order(port, path))

    def on_started(self, replica: Replica, pid: int, fds: list[int]) -> None:
        """The master started it; whether it answers is another question."""
        replica.pid = pid
        shown = replica.shown
        replica.log = LogLines(self.house.loop, fds, lambda it: self.house.info(f"{shown}: {it}"))
        if replica.state == STARTING:
            replica.task = self.house.loop.create_task(self._wait_ready(replica))
        else:  # it was too late to call it back
            self._end(replica)

    async def _wait_ready(self, replica: Replica) -> None:
        function = self.wanted
        if function is None or replica.fingerprint != self.fingerprint:
            # an adopted one of an older version: nobody knows its check any more
            check, timeout_ms = None, 1000
        else:
            check, timeout_ms = function.ready, function.start_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                address = await wait_ready(replica.addresses, check)
        except TimeoutError:
            replica.task = None
            self.house.warn(
                f"function {self.name}: replica {replica.shown} was not ready within "
                f"{timeout_ms} ms{last_words(replica)}"
            )
            self._end(replica)
            if replica.fingerprint == self.fingerprint:
                self._on_failure(was_ready=False)
            return
        replica.task = None
        replica.release()
        replica.address = address
        replica.state = READY
        replica.ready_s = time.monotonic()
        if not address.startswith("unix:"):
            replica.forget_files()
        took_ms = (replica.ready_s - replica.born_s) * 1000
        self.house.notice(f"function {self.name}: replica {replica.shown} ready ({took_ms:.0f} ms)")
        self.house.publish(self.name)
        self.keep()

    # -- deaths ---------------------------------------------------------------------------------
    def on_failed(self, replica: Replica, error: str) -> None:
        """The master could not start it."""
        self.house.warn(f"function {self.name}: replica {replica.shown} did not start: {error}")
        was_wanted = replica.state == STARTING
        self._forget(replica)
        if was_wanted and replica.fingerprint == self.fingerprint:
            self._on_failure(was_ready=False)

    def on_exited(self, replica: Replica, status: int | None) -> None:
        """It is gone."""
        was = replica.state
        self._forget(replica)
        if was == READY:
            self.house.publish(self.name)
        how = "ended" if status is None else f"exited with code {status}"
        if status is not None and status < 0:
            how = f"exited on signal {-status}"
        if was in (STOPPING, DRAINING):
            self.house.notice(f"function {self.name}: replica {replica.shown} {how}")
            return
        self.house.warn(f"function {self.name}: replica {replica.shown} {how}{last_words(replica)}")
        if replica.fingerprint != self.fingerprint:
            self.keep()
            return
        if was == STARTING:
            self._is_port_free = not self._is_port_free  # a server that sets no SO_REUSEADDR?
        elif time.monotonic() - replica.ready_s >= LONG_LIFE_S:
            self._failures = 0
        self._on_failure(was_ready=was == READY)

    def _on_failure(self, was_ready: bool) -> None:
        self._failures += 1
        if was_ready and self._failures == 1:
            self.keep()
        elif self._retry is None:
            step = min(self._failures - 1 - was_ready, 20)
            pause_s = min(FIRST_PAUSE_S * 2**step, LONGEST_PAUSE_S)
            self._retry = self.house.loop.call_later(pause_s, self._on_pause_over)

    def _on_pause_over(self) -> None:
        self._retry = None
        self.keep()

    def _forget(self, replica: Replica) -> None:
        self.replicas.pop(replica.id, None)
        if replica.task is not None and replica.state == STARTING:
            replica.task.cancel()
            replica.task = None
        if replica.log is not None:
            replica.log.close()
        replica.release()
        replica.forget_files()

    # -- leaving --------------------------------------------------------------------------------
    def _stop(self, replica: Replica) -> None:
        if replica.state == STARTING:
            if replica.task is not None:
                replica.task.cancel()
                replica.task = None
            self._end(replica)
        elif replica.state == READY:
            replica.state = DRAINING
            replica.task = self.house.loop.create_task(self._drain(replica))

    async def _drain(self, replica: Replica) -> None:
        timeout_ms = self.wanted.drain_timeout_ms if self.wanted else 30_000
        await self.house.drain(replica, timeout_ms)
        replica.task = None
        self._end(replica)

    def _end(self, replica: Replica) -> None:
        """TERM now, KILL later."""
        replica.state = STOPPING
        if replica.id in self.replicas:
            self.house.processes.signal(replica.id, signal.SIGTERM)
            self.house.loop.call_later(KILL_AFTER_S, self._kill, replica)

    def _kill(self, replica: Replica) -> None:
        if replica.id in self.replicas:
            self.house.warn(f"function {self.name}: replica {replica.shown} ignores TERM: killed")
            self.house.processes.signal(replica.id, signal.SIGKILL)


def hold_port() -> socket.socket:
    """A free port of 127.0.0.1, bound and not listened on: nobody else is given it, and a server
    that sets SO_REUSEADDR (nearly all do) can bind it beside us. Raises OSError."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
    except OSError:
        holder.close()
        raise
    return holder


def last_words(replica: Replica) -> str:
    """The end of what it printed, for the error log."""
    lines = list(replica.log.lines)[-LAST_WORDS:] if replica.log else []
    return ", last words: " + " | ".join(lines) if lines else ""
