"""One question to a peer, asked to learn how it is: an HTTP status, or Health/Check of gRPC.

Speed does not matter here; what a peer can make us hold does: LINE_BYTES, or MOST_BYTES of HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

LINE_BYTES = 4096
MOST_BYTES = 65536
AGENT = "headrace-check"
METHOD_POST, SCHEME_HTTP, SCHEME_HTTPS = b"\x83", b"\x86", b"\x87"  # RFC 7541 appendix A
CHECK = b"/grpc.health.v1.Health/Check"
SERVING = 1  # HealthCheckResponse.ServingStatus


@contextlib.asynccontextmanager
async def connected(
    address: str, context: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to `unix:PATH` or `HOST:PORT`, closed at the end; name: whom TLS asks for.
    Raises OSError."""
    tls = {"ssl": context, "server_hostname": name or ""} if context is not None else {}
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(
            address[5:], limit=LINE_BYTES, **tls  # type: ignore[arg-type]
        )
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), limit=LINE_BYTES, **tls  # type: ignore[arg-type]
        )
    try:
        yield reader, writer
    finally:
        if context is not None:
            writer.transport.abort()  # a server may take its time with TLS's farewell
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_status(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str
) -> int:
    """The status of GET path over HTTP/1.1. Raises OSError, EOFError, ValueError."""
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\n"
        "Connection: close\r\n\r\n".encode("latin-1")
    )
    try:
        words = (await reader.readuntil(b"\n")).split(None, 2)
    except asyncio.LimitOverrunError:
        raise ValueError("no HTTP") from None
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("no HTTP")
    return int(words[1])


async def ask_health(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str, host: str
) -> tuple[int, int]:
    """(grpc-status, serving status) of Health/Check for a service, "" for the server as a whole
    (grpc/doc/health-checking.md). Raises OSError, EOFError, ValueError."""
    from proxy.wire.h2_door import Connection, write_field

    link = Connection(is_client=True)
    is_tls = writer.get_extra_info("ssl_object") is not None
    number = link.ask(
        METHOD_POST
        + (SCHEME_HTTPS if is_tls else SCHEME_HTTP)
        + write_field(b":path", CHECK)
        + write_field(b":authority", host.encode("latin-1"))
        + write_field(b"te", b"trailers")
        + write_field(b"content-type", b"application/grpc")
        + write_field(b"user-agent", AGENT.encode())
    )
    link.send(number, message_of(service))
    link.end(number)
    writer.write(link.sent)
    said: dict[bytes, bytes] = {}
    status = 0
    body = b""
    taken = 0
    while taken < MOST_BYTES:
        piece = await reader.read(LINE_BYTES)
        if not piece:
            raise EOFError("closed before it answered")
        taken += len(piece)
        for event in link.feed(piece):
            if event[0] in ("broken", "reset"):
                raise ValueError(f"{event[0]} ({event[1 + (event[0] == 'reset')]})")
            if event[0] in ("head", "trailers"):
                if not isinstance(event[2], dict):
                    raise ValueError(f"a bad head: {event[2]}")
                status = event[2]["status"] if event[0] == "head" else status
                said.update(event[2]["fields"])
            elif event[0] == "body":
                body += event[2]
            if event[0] in ("head", "body", "trailers") and event[3]:
                return verdict(status, said, body)
        if answer := link.sent:
            writer.write(answer)
    raise ValueError("an answer without end")


def message_of(service: str) -> bytes:
    """A HealthCheckRequest as gRPC sends it: five bytes, then field 1. ValueError: too long."""
    name = service.encode()
    if len(name) > 127:
        raise ValueError("a name of more than 127 bytes")
    message = bytes([0x0A, len(name)]) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def verdict(status: int, said: dict[bytes, bytes], body: bytes) -> tuple[int, int]:
    """What the answer comes to. Raises ValueError where it is none of gRPC's."""
    word = said.get(b"grpc-status", b"")
    if status != 200 or not word.isdigit():
        raise ValueError(f"no answer of gRPC (HTTP status {status})")
    serving = 0
    if len(body) >= 7 and body[:1] == b"\0" and body[5] == 0x08:  # field 1, a number below 128
        serving = body[6]
    return int(word), serving
