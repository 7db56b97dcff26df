"""A ClientHello says its names whole or in pieces, in one record or many; all else is none."""

from __future__ import annotations

import random
import ssl
import struct

import pytest

from proxy.wire import _client_hello

MORE, READ, NONE = 0, 1, -1


def real_hello(name: str | None, alpn: list[str] | None = None, most: int | None = None) -> bytes:
    """What OpenSSL really sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    if most is not None:
        context.maximum_version = most
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(data, 2)


def sni(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(bytes([kind]) + vector(name, 2), 2))


def message(extensions: bytes | None, version: bytes = b"\3\3") -> bytes:
    body = version + bytes(32) + vector(b"", 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1)
    if extensions is not None:
        body += vector(extensions, 2)
    return b"\1" + vector(body, 3)


def records(data: bytes, size: int = 16384) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\3\1" + vector(piece, 2) for piece in pieces)


@pytest.mark.parametrize(
    ("hello", "name", "alpn", "version"),
    [
        (real_hello("example.com"), b"example.com", b"", (3, 4)),
        (real_hello("a.test", ["h2", "http/1.1"]), b"a.test", b"h2,http/1.1", (3, 4)),
        (real_hello("a.test", None, ssl.TLSVersion.TLSv1_2), b"a.test", b"", (3, 3)),
        (real_hello(None), b"", b"", (3, 4)),
        (records(message(None, b"\3\0")), b"", b"", (3, 0)),
        (records(message(sni(b"x" * 255))), b"x" * 255, b"", (3, 3)),
        # GREASE (RFC 8701): unknown extensions, versions and protocols are passed over
        (
            records(message(
                extension(0x0A0A, b"") + sni(b"g.test")
                + extension(43, vector(b"\x7a\x7a\3\4\3\3", 1))
                + extension(16, vector(vector(b"\x1a\x1a", 1) + vector(b"h2", 1), 2))
                + extension(0xFAFA, b"\0")
            )),
            b"g.test", b"h2", (3, 4),
        ),
        # an extension that says it is longer than the list: nginx reads what is there
        (
            records(message(b"\0\x2b\0\7\2\x7f\x1c")), b"", b"", (3, 4),
        ),
        # what cannot be a name is none
        (records(message(sni(b"x" * 256))), b"", b"", (3, 3)),
        (records(message(sni(b"a\0b"))), b"", b"", (3, 3)),
        (records(message(sni(b"a b"))), b"", b"", (3, 3)),
        (records(message(sni(b"a", kind=9))), b"", b"", (3, 3)),
        (b"\x80\x2e\1\0\2\0\x15", b"", b"", (0, 2)),
        (b"\x80\x2e\1\3\1\0\x15", b"", b"", (3, 1)),
    ],
)  # fmt: skip
def test_what_it_says_is_read_at_the_last_byte_and_not_before(hello, name, alpn, version) -> None:
    assert _client_hello.read(hello) == (READ, name, alpn, version)
    whole = len(hello) if hello[0] == 0x16 else 5
    for cut in range(whole):
        assert _client_hello.read(hello[:cut])[0] == MORE, cut
    assert _client_hello.read(hello + b"\x17\3\3\0\1x")[:2] == (READ, name)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_it_may_lie_in_many_records(size) -> None:
    hello = records(message(sni(b"many.test")), size)
    assert _client_hello.read(hello)[:2] == (READ, b"many.test")
    for cut in range(len(hello)):
        assert _client_hello.read(hello[:cut])[0] == MORE


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0",
        b"\x15\3\1\0\2\1\0",
        b"\x16\2",
        b"\x16\3\1\0\0",  # an empty fragment (RFC 8446 §5.1)
        b"\x16\3\1\0\4\2\0\0\0",  # a ServerHello
        b"\x16\3\1\0\4\1\xff\xff\xff",  # longer than any that is read
        b"\x80\x2e\2",
        records(b"\1" + vector(b"\3\3", 3)),
        records(message(b"\0")),
        records(message(sni(b"a")[:-1])),
        records(message(extension(0, vector(b"\0", 2)))),
        records(message(extension(0, vector(b"\0" + vector(b"a", 2), 2) + b"x"))),
        records(message(extension(16, vector(vector(b"", 1), 2)))),
        records(message(extension(43, vector(b"\3", 1)))),
        records(message(b"")[:-2] + b"\0\1"),
    ],
)
def test_what_contradicts_itself_is_none(data) -> None:
    assert _client_hello.read(data)[0] == NONE


def test_any_byte_may_be_wrong() -> None:
    random.seed(4)
    hello = bytearray(real_hello("fuzz.test", ["h2"]))
    for _ in range(20000):
        at = random.randrange(len(hello))
        kept, hello[at] = hello[at], random.randrange(256)
        cut = random.randrange(len(hello)) + 1
        verdict, name, alpn, _ = _client_hello.read(bytes(hello[:cut]))
        assert verdict in (MORE, READ, NONE)
        assert len(name) <= 255
        assert len(alpn) <= 1024
        hello[at] = kept
