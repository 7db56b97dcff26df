"""The HTTP that begins MQTT in a WebSocket (MQTT 5 §6, RFC 6455 §4.2)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from hashlib import sha1

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HEAD_BYTES = 16 * 1024


def answer(head: bytes) -> tuple[bool, bytes]:
    """Whether frames follow, and what the client is told. head: a request to its empty line."""
    lines = head.split(b"\r\n")
    words = lines[0].split(b" ")
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not line:
            continue
        if not colon or not name or name != name.strip():
            return refused(400, b"Bad Request")
        name, value = name.lower(), value.strip()
        fields[name] = fields[name] + b", " + value if name in fields else value
    if len(words) != 3 or words[0] != b"GET" or words[2] != b"HTTP/1.1":
        return refused(400, b"Bad Request")
    if b"websocket" not in tokens(fields, b"upgrade") or b"upgrade" not in tokens(
        fields, b"connection"
    ):
        return refused(426, b"Upgrade Required", b"Upgrade: websocket\r\n")
    if fields.get(b"sec-websocket-version") != b"13":
        return refused(426, b"Upgrade Required", b"Sec-WebSocket-Version: 13\r\n")
    key = fields.get(b"sec-websocket-key", b"")
    try:
        is_key = len(b64decode(key, validate=True)) == 16
    except Error:
        is_key = False
    if not is_key or b"mqtt" not in tokens(fields, b"sec-websocket-protocol"):
        return refused(400, b"Bad Request")
    accept = b64encode(sha1(key + MAGIC).digest())
    return True, (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )


def forwarded_for(head: bytes) -> bytes:
    """Who connected, as our own http { } says; b"" if nobody does."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"x-forwarded-for":
            return value.rpartition(b",")[2].strip()
    return b""


def tokens(fields: dict[bytes, bytes], name: bytes) -> list[bytes]:
    return [it.strip().lower() for it in fields.get(name, b"").split(b",")]


def refused(status: int, reason: bytes, more: bytes = b"") -> tuple[bool, bytes]:
    return False, (
        b"HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n"
        % (status, reason, more)
    )
