"""The controller's Unix socket: workers' streams of the table (table.py), and HTTP.

Every connection begins as HTTP/1.1. `GET /table` with an upgrade becomes a worker's stream;
everything else is http.py's, which is loaded for the first of them.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.functions.model import Function, Version

    Rows = list[tuple[str, str]]  # (id, address)

HEAD_BYTES = 8192
LINE_BYTES = 64 * 1024
BUFFER_BYTES = 64 << 20  # a worker that stands still so long is cut; it comes back
TABLE = b"GET /table "
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: headrace-table\r\n\r\n"
)


class Source(Protocol):
    """Whose table it is."""

    def on_link(self, link: Link) -> None: ...
    def on_drained(self, link: Link, id: str) -> None: ...
    def on_wake(self, link: Link, key: str) -> None: ...
    def on_link_lost(self, link: Link) -> None: ...


class Link(asyncio.Protocol):
    """One connection. known: the replicas its worker was told, by version."""

    def __init__(self, source: Source, http: Callable[[], asyncio.Protocol]) -> None:
        self.source = source
        self.known: dict[str, set[str]] = {}
        self.transport: asyncio.Transport
        self._http = http
        self._is_table = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its manners

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._is_table:
            if not data.startswith(TABLE[: len(data)]):
                self._become_http(data)
                return
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                if len(head) > HEAD_BYTES:
                    self.transport.close()
                return
            if b"headrace-table" not in head:
                self.transport.close()
                return
            self._is_table = True
            self._rest = b""
            self.transport.write(SWITCHED)
            self.source.on_link(self)
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LINE_BYTES:
            self.transport.close()
            return
        for line in lines:
            try:
                message = json.loads(line)
                if "drained" in message:
                    self.source.on_drained(self, str(message["drained"]))
                elif "wake" in message:
                    self.source.on_wake(self, str(message["wake"]))
                else:
                    raise ValueError
            except (ValueError, TypeError):
                self.transport.close()
                return

    def _become_http(self, data: bytes) -> None:
        http = self._http()
        self.transport.set_protocol(http)
        http.connection_made(self.transport)
        http.data_received(data)

    # -- down; table.py says what the lines mean --------------------------------------------------
    def tell(self, function: Function, replicas: Mapping[str, Rows]) -> None:
        """A function as it is, with all its ready replicas by version."""
        for key, rows in replicas.items():
            self.known[key] = {id for id, _ in rows}
        self._write(row_of(function, replicas))

    def tell_replicas(self, key: str, rows: Rows) -> None:
        """All ready replicas of a version."""
        self.known[key] = {id for id, _ in rows}
        self._write({"replicas": key, "are": rows})

    def tell_gone(self, key: str) -> None:
        self._write({"gone": key})

    def tell_failed(self, key: str, error: str) -> None:
        self._write({"failed": key, "error": error[:1000]})

    def tell_whole(self) -> None:
        self._write({"whole": True})

    def _write(self, message: dict[str, Any]) -> None:
        if self.transport.get_write_buffer_size() > BUFFER_BYTES:
            self.transport.abort()
        else:
            self.transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def knows(self, key: str, id: str) -> bool:
        return id in self.known.get(key, ())

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_table:
            self.source.on_link_lost(self)


def row_of(function: Function, replicas: Mapping[str, Rows]) -> dict[str, Any]:
    """The line of a function."""
    return {
        "function": function.key,
        "name": function.name,
        "namespace": function.namespace,
        "labels": dict(function.labels),
        "annotations": dict(function.annotations),
        "created_at": function.created_at,
        "sticky": str(function.sticky) if function.sticky else None,
        "async": function.is_async,
        "versions": [
            {**row_of_version(it), "replicas": replicas.get(it.key, [])}
            for it in function.versions
        ],
    }


def prefix_of(version: Version) -> str:
    """What its replicas have its paths below."""
    if version.handler.kind != "openfaas":
        return ""
    from proxy.functions.provider import Refusal
    from proxy.functions.providers.openfaas import prefix_of

    try:
        return prefix_of(version)
    except Refusal:
        return ""


def row_of_version(version: Version) -> dict[str, Any]:
    """Its settings."""
    queue = version.queue
    return {
        "name": version.name,
        "weight": version.weight,
        "tag": version.tag,
        "prefix": prefix_of(version),
        "mirror": version.mirror,
        "concurrency": version.concurrency,
        "queue": [queue.size, queue.bytes, queue.wait_ms],
        "timeout_ms": version.timeout_ms,
        "count_streams": version.count_streams,
        "http_version": version.http_version,
        "balance": list(version.balance),
    }
