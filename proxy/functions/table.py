"""The table of functions as a worker sees it: told by the controller, kept in a Functions.

The stream begins as an HTTP/1.1 upgrade to `headrace-table` on the controller's Unix socket. Then
one JSON object a line. Down:

    {"function": KEY, …}                        one function, each time whole: see Functions
    {"replicas": KEY/VERSION, "are": [[ID, ADDRESS], …]}    only who is ready, each time all
    {"gone": KEY}                               the function is no more
    {"failed": KEY/VERSION, "error": TEXT}      no replica could be started
    {"whole": true}                             every function was told once

Up:

    {"drained": ID}        it left the table, and no request of this worker is at it any more
    {"wake": KEY/VERSION}  a request waits here, and nobody is ready

While the controller is away the table stays as it is.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from proxy.functions._function import Functions

HELLO = (
    b"GET /table HTTP/1.1\r\nHost: controller\r\nConnection: upgrade\r\n"
    b"Upgrade: headrace-table\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 "
LINE_BYTES = 4 << 20
SWEEP_S = 0.005
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0


class Table:
    """Follows the controller at `path` and changes `functions`."""

    def __init__(self, functions: Functions, path: str) -> None:
        self.functions = functions
        self.path = path
        self.is_whole = asyncio.Event()
        self._told: set[str] = set()
        self._stream: _Stream | None = None
        self._sweep: asyncio.TimerHandle | None = None
        functions.wake = self.wake

    async def follow(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                _, stream = await loop.create_unix_connection(lambda: _Stream(self), self.path)
            except OSError:
                pass
            else:
                self._stream = stream
                self._told = set()
                pause_s = FIRST_PAUSE_S
                await stream.is_over.wait()
                self._stream = None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def take(self, message: dict[str, Any]) -> None:
        """One line from the controller."""
        if "function" in message:
            key = message["function"]
            if "versions" in message:
                self.functions.change(message)
            else:  # nobody declares it any more; what is left of it answers
                self.functions.change_replicas(f"{key}/v1", message["replicas"])
            self._told.add(key)
        elif "replicas" in message:
            self.functions.change_replicas(message["replicas"], message["are"])
        elif "gone" in message:
            self.functions.forget(message["gone"])
        elif "failed" in message:
            self.functions.fail(message["failed"])
        elif message.get("whole"):
            for function in self.functions:
                if function.key.decode() not in self._told:
                    self.functions.forget(function.key.decode())
            self.functions.wake_again()
            self.is_whole.set()
        self._on_sweep()
        if self.functions.on_told is not None:
            self.functions.on_told()

    def wake(self, key: str) -> None:
        """Somebody waits for the version of that key."""
        if self._stream is not None:
            self._stream.write({"wake": key})

    def _on_sweep(self) -> None:
        """Tell of those that left and are idle; look again soon for the others."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for replica in self.functions.take_idle():
            if self._stream is not None:
                self._stream.write({"drained": replica.id})
        if self.functions.left:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._on_sweep)


class _Stream(asyncio.Protocol):
    """The worker's end of the stream."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.is_over = asyncio.Event()
        self.transport: asyncio.Transport
        self._is_switched = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its manners
        self.transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._is_switched:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if not head.startswith(SWITCHED):
                self.transport.close()
                return
            self._is_switched = True
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            try:
                self.table.take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                self.transport.close()
                return
        if len(self._rest) > LINE_BYTES:
            self.transport.close()

    def write(self, message: dict[str, Any]) -> None:
        self.transport.write(json.dumps(message).encode() + b"\n")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over.set()
