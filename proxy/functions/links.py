"""The controller's Unix socket: the stream of the table (table.py) and a look at the replicas.

Every connection begins as HTTP/1.1. `GET /table` with an upgrade becomes a worker's stream,
`GET /replicas` is answered with JSON, anything else with 404.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from proxy.functions.model import Function

HEAD_BYTES = 8192
LINE_BYTES = 64 * 1024
BUFFER_BYTES = 16 << 20  # a worker that stands still so long is cut; it comes back
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: headrace-table\r\n\r\n"
)


class Source(Protocol):
    """Whose table it is."""

    links: set[Link]

    def on_link(self, link: Link) -> None: ...
    def on_drained(self, link: Link, id: str) -> None: ...
    def on_link_lost(self, link: Link) -> None: ...
    def look(self) -> Any: ...


class Link(asyncio.Protocol):
    """One connection. known: the replicas its worker was told, by function."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: dict[str, set[str]] = {}
        self.transport: asyncio.Transport
        self._is_table = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its manners

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._is_table:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                if len(head) > HEAD_BYTES:
                    self.transport.close()
                return
            self._answer(head)
            if not self._is_table:
                return
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LINE_BYTES:
            self.transport.close()
            return
        for line in lines:
            try:
                id = json.loads(line)["drained"]
            except (ValueError, KeyError, TypeError):
                self.transport.close()
                return
            self.source.on_drained(self, id)

    def _answer(self, head: bytes) -> None:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if words[:2] == [b"GET", b"/table"] and b"headrace-table" in head:
            self._is_table = True
            self._rest = b""
            self.transport.write(SWITCHED)
            self.source.on_link(self)
            return
        found = words[:2] == [b"GET", b"/replicas"]
        status = b"200 OK" if found else b"404 Not Found"
        body = json.dumps(self.source.look() if found else {"error": "not found"}).encode() + b"\n"
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%b" % (status, len(body), body)
        )
        self.transport.close()

    def tell(self, key: str, rows: list[tuple[str, str]], function: Function | None) -> None:
        """A function as it is, with all its ready replicas: (id, address)."""
        self.known[key] = {id for id, _ in rows}
        self._write({"function": key, "replicas": rows, **row_of(function, rows)})

    def tell_whole(self) -> None:
        self._write({"whole": True})

    def _write(self, message: dict[str, Any]) -> None:
        if self.transport.get_write_buffer_size() > BUFFER_BYTES:
            self.transport.abort()
        else:
            self.transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def knows(self, name: str, id: str) -> bool:
        return id in self.known.get(name, ())

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_table:
            self.source.on_link_lost(self)


def row_of(function: Function | None, rows: list[tuple[str, str]]) -> dict[str, Any]:
    """What the table says of a function; see table.py."""
    if function is None:
        return {}
    return {
        "name": function.name,
        "namespace": function.namespace,
        "labels": dict(function.labels),
        "annotations": dict(function.annotations),
        "created_at": function.created_at,
        "sticky": str(function.sticky) if function.sticky else None,
        "async": function.is_async,
        "versions": [
            {
                "name": it.name,
                "weight": it.weight,
                "tag": it.tag,
                "mirror": it.mirror,
                "concurrency": it.concurrency,
                "queue": [it.queue.size, it.queue.bytes, it.queue.wait_ms],
                "timeout_ms": it.timeout_ms,
                "count_streams": it.count_streams,
                "replicas": [row for row in rows if row[0].startswith(f"{it.key}/")],
            }
            for it in function.versions
        ],
    }
