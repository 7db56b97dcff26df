"""The table of replicas as a worker sees it: told by the controller, kept in Upstreams.

The stream begins as an HTTP/1.1 upgrade to `headrace-table` on the controller's Unix socket. Then
one JSON object a line. Down:

    {"function": NAME, "replicas": [[ID, ADDRESS], …]}    all that are ready, each time whole
    {"whole": true}                                       every function was told once

Up:

    {"drained": ID}      it left the table, and no request of this worker is at it any more

While the controller is away the table stays as it is.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from proxy.upstream._balance import Peer
from proxy.upstream.servers import pack_ip, pack_unix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.upstream._balance import Upstream

HELLO = (
    b"GET /table HTTP/1.1\r\nHost: controller\r\nConnection: upgrade\r\n"
    b"Upgrade: headrace-table\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 "
LINE_BYTES = 4 << 20
SWEEP_S = 0.005
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0
FAIL_TIMEOUT_MS = 1000  # a replica that failed is asked again after that


class Table:
    """Follows the controller at `path` and changes `upstreams` (function name → Upstream)."""

    def __init__(self, upstreams: Mapping[str, Upstream], path: str) -> None:
        self.upstreams = upstreams
        self.path = path
        self.is_whole = asyncio.Event()
        self._peers: dict[str, dict[str, Peer | None]] = {}
        self._leaving: dict[str, Peer] = {}
        self._told: set[str] = set()
        self._stream: _Stream | None = None
        self._sweep: asyncio.TimerHandle | None = None

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
            self._told.add(message["function"])
            self._change(message["function"], message["replicas"])
        elif message.get("whole"):
            for name in self._peers.keys() - self._told:
                self._change(name, [])
            self.is_whole.set()

    def _change(self, name: str, rows: list[list[str]]) -> None:
        upstream = self.upstreams.get(name)
        before = self._peers.get(name, {})
        # what cannot be read must change nothing: first all, then the table
        after: dict[str, Peer | None] = {}
        for id, address in rows:
            if id in before:
                after[id] = before[id]
            elif id in self._leaving:
                after[id] = self._leaving[id]
            else:
                after[id] = peer_of(address) if upstream is not None else None
        for id in after:
            self._leaving.pop(id, None)
        self._peers[name] = after
        if upstream is not None:
            upstream.change([it for it in after.values() if it is not None])
        for id, peer in before.items():
            if id not in after:
                if peer is None or peer.conns == 0:
                    self._drained(id)
                else:
                    self._leaving[id] = peer
        if not after:
            del self._peers[name]
        self._watch()

    def _watch(self) -> None:
        if self._leaving and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        for id, peer in list(self._leaving.items()):
            if peer.conns == 0:
                del self._leaving[id]
                self._drained(id)
        self._watch()

    def _drained(self, id: str) -> None:
        if self._stream is not None:
            self._stream.write({"drained": id})


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


def peer_of(address: str) -> Peer:
    """A Peer for `unix:PATH` or `IP:PORT`."""
    if address.startswith("unix:"):
        return Peer(*pack_unix(address[5:]), max_fails=1, fail_timeout_ms=FAIL_TIMEOUT_MS)
    host, _, port = address.rpartition(":")
    return Peer(*pack_ip(host, int(port)), max_fails=1, fail_timeout_ms=FAIL_TIMEOUT_MS)
