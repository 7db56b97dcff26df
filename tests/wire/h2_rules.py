"""What HTTP/2 asks of a server, as a table: bytes of a client, and what must become of them.

Each rule is (clause, what it is, the client's frames, the outcome), the clause of RFC 9113 unless
it says another. Outcomes: GOAWAY(code) ends the connection, RESET(id, code) one stream; OPEN: no
word of blame, and the connection goes on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY_FRAME = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
PRIORITY_UPDATE = 16
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32
PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11


@dataclass(frozen=True)
class GOAWAY:
    """The connection ends with this code."""

    code: int


@dataclass(frozen=True)
class RESET:
    """A stream ends with this code, and others go on."""

    id: int
    code: int


OPEN = None


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, number) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A literal without indexing."""
    return b"\x00" + string(name) + string(value)


def string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, coded = len(text) - 127, b""
    while rest >= 128:
        coded += bytes([rest & 127 | 128])
        rest >>= 7
    return b"\x7f" + coded + bytes([rest]) + text


PADDED_CODE = b"\x00\x01a\x82\xf8\xff"  # "&" has eight bits: where the code ends a byte does
METHOD, SCHEME, PATH = b"\x82", b"\x86", b"\x84"
HOST = field(b":authority", b"a.example")
GET = METHOD + SCHEME + PATH + HOST
POST = b"\x83" + SCHEME + PATH + HOST


def request(number: int = 1, block: bytes = GET, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """HEADERS of a whole request."""
    return frame(HEADERS, flags, number, block)


def post(number: int = 1, more: bytes = b"") -> bytes:
    """HEADERS of a request with a body."""
    return frame(HEADERS, END_HEADERS, number, POST + more)


CONNECT, WEBSOCKET = field(b":method", b"CONNECT"), field(b":protocol", b"websocket")


def extended(block: bytes = CONNECT + WEBSOCKET + SCHEME + PATH + HOST) -> bytes:
    """HEADERS that ask for a WebSocket."""
    return request(1, block, END_HEADERS)


def update(number: int, n: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, number, struct.pack(">I", n))


def setting(name: int, value: int) -> bytes:
    """SETTINGS with one of them."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def priority(number: int, on: int) -> bytes:
    """PRIORITY."""
    return frame(PRIORITY, 0, number, struct.pack(">IB", on, 16))


def reset(number: int, code: int = 8) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, number, struct.pack(">I", code))


def malformed(*fields: bytes) -> bytes:
    """A request with these pieces of a block behind the usual pseudo-fields."""
    return request(1, GET + b"".join(fields))


BROKEN = [
    # -- connections ------------------------------------------------------------------------
    ("3.4", "DATA before SETTINGS", frame(DATA, 0, 1, b"x"), GOAWAY(PROTOCOL)),
    ("3.4", "PING before SETTINGS", frame(PING, 0, 0, bytes(8)), GOAWAY(PROTOCOL)),
    # a client that has none is taken all the same, as nginx takes it: it has those of the RFC
    ("3.4", "a request before SETTINGS", request(), OPEN),
    ("3.4", "WINDOW_UPDATE before SETTINGS", update(0, 9), OPEN),
    ("3.4", "DATA of that request before SETTINGS",
     post() + frame(DATA, END_STREAM, 1, b"x"), OPEN),
]
SETTLED = frame(SETTINGS)
RULES = [
    ("3.4", "an empty SETTINGS frame", b"", OPEN),
    ("4.1", "a frame of an unknown type", frame(0x42, 0xFF, 0, b"what"), OPEN),
    ("4.1", "an unknown type on a stream", request() + frame(0x42, 0, 1), OPEN),
    ("4.1", "flags that PING does not have", frame(PING, 0x16, 0, bytes(8)), OPEN),
    ("4.1", "the reserved bit", frame(PING, 0, 0x80000000, bytes(8)), OPEN),
    ("4.2", "DATA of 16,384 bytes", post() + frame(DATA, END_STREAM, 1, bytes(16384)), OPEN),
    ("4.2", "DATA beyond SETTINGS_MAX_FRAME_SIZE",
     post() + frame(DATA, 0, 1, bytes(16385)), GOAWAY(SIZE)),
    ("4.2", "HEADERS beyond it", frame(HEADERS, 5, 1, bytes(16385)), GOAWAY(SIZE)),
    ("4.3", "a block that is no HPACK", request(1, b"\x80"), GOAWAY(COMPRESSION)),
    ("4.3", "a block that ends within an index", request(1, b"\xff"), GOAWAY(SIZE)),
    ("4.3", "a block that ends within a length", request(1, b"\x42\xff"), GOAWAY(SIZE)),
    ("4.3", "a block that begins with too long an index, before its frame is whole",
     frame(HEADERS, 5, 1, b"\xff" * 5)[:-1], GOAWAY(COMPRESSION)),
    ("4.3", "a block that begins with too long a length, before its frame is whole",
     frame(HEADERS, 5, 1, b"\x42" + b"\xff" * 5)[:-1], GOAWAY(COMPRESSION)),
    ("5.2 of RFC 7541", "a Huffman code with a byte of padding",
     request(1, GET + PADDED_CODE), OPEN),
    ("5.2 of RFC 7541", "a Huffman code with more padding",
     request(1, GET + b"\x00\x01a\x83\xf8\xff\xff"), GOAWAY(COMPRESSION)),
    ("5.2 of RFC 7541", "a Huffman code with a byte more than it needs",
     request(1, GET + b"\x00\x01a\x82\x1f\xff"), GOAWAY(COMPRESSION)),
    ("4.3", "a block that is cut", request(1, GET + b"\x40\x05ab"), GOAWAY(COMPRESSION)),
    ("4.3", "the same in trailers",
     post() + request(1, b"\xff\xff\xff\xff\xff"), GOAWAY(COMPRESSION)),
    ("4.3", "a size update within the block", request(1, GET + b"\x20"), GOAWAY(COMPRESSION)),
    ("4.3", "a PRIORITY inside a header block",
     frame(HEADERS, 1, 1, GET) + priority(3, 0), GOAWAY(PROTOCOL)),
    ("4.3", "HEADERS of another stream inside one",
     frame(HEADERS, 1, 1, GET) + request(3), GOAWAY(PROTOCOL)),
    ("4.3", "DATA inside one", frame(HEADERS, 0, 1, POST) + frame(DATA, 0, 1, b"x"),
     GOAWAY(PROTOCOL)),
    # -- states of a stream -----------------------------------------------------------------
    ("5.1", "idle: DATA", frame(DATA, END_STREAM, 1, b"x"), GOAWAY(PROTOCOL)),
    ("5.1", "idle: RST_STREAM", reset(1), GOAWAY(PROTOCOL)),
    ("5.1", "idle: WINDOW_UPDATE", update(1, 100), GOAWAY(PROTOCOL)),
    ("5.1", "idle: CONTINUATION", frame(CONTINUATION, 4, 1, GET), GOAWAY(PROTOCOL)),
    ("5.1", "idle: PRIORITY", priority(1, 0), OPEN),
    ("5.1", "half-closed (remote): DATA",
     request() + frame(DATA, END_STREAM, 1, b"x"), RESET(1, CLOSED)),
    ("5.1", "half-closed (remote): HEADERS", request() + request(), RESET(1, CLOSED)),
    ("5.1", "half-closed (remote): CONTINUATION",
     request() + frame(CONTINUATION, 4, 1, GET), GOAWAY(PROTOCOL)),
    ("5.1", "half-closed (remote): WINDOW_UPDATE", request() + update(1, 9), OPEN),
    ("5.1", "half-closed (remote): PRIORITY", request() + priority(1, 0), OPEN),
    ("5.1", "closed by RST_STREAM: DATA",
     post() + reset(1) + frame(DATA, END_STREAM, 1, b"x"), RESET(1, CLOSED)),
    ("5.1", "closed by RST_STREAM: HEADERS", post() + reset(1) + request(), RESET(1, CLOSED)),
    ("5.1", "closed by RST_STREAM: CONTINUATION",
     post() + reset(1) + frame(CONTINUATION, 5, 1, GET), GOAWAY(PROTOCOL)),
    ("5.1", "closed by RST_STREAM: WINDOW_UPDATE", post() + reset(1) + update(1, 9), OPEN),
    ("5.1", "closed by RST_STREAM: RST_STREAM", post() + reset(1) + reset(1), OPEN),
    ("5.1", "closed by RST_STREAM: PRIORITY", post() + reset(1) + priority(1, 0), OPEN),
    ("5.1", "reset by us: DATA that was on its way",
     post(1, field(b"X", b"")) + frame(DATA, 0, 1, b"x"), RESET(1, PROTOCOL)),
    ("5.1", "reset by us: trailers that were on their way",
     post(1, field(b"X", b"")) + request(1, field(b"a", b"b")), RESET(1, PROTOCOL)),
    ("5.1.1", "an even number", request(2), GOAWAY(PROTOCOL)),
    ("5.1.1", "a number below the last", request(5) + request(3), GOAWAY(PROTOCOL)),
    ("5.1.1", "numbers passed over", request(5) + request(51), OPEN),
    ("5.1.1", "DATA on an even number", frame(DATA, 1, 2, b"x"), GOAWAY(PROTOCOL)),
    ("5.1.2", "more streams than we allow",
     b"".join(post(i) for i in range(1, 12, 2)), RESET(11, REFUSED)),
    ("5.3.1 of RFC 7540", "PRIORITY on itself, idle", priority(3, 3), GOAWAY(PROTOCOL)),
    ("5.3.1 of RFC 7540", "PRIORITY on itself, open", post(3) + priority(3, 3), RESET(3, PROTOCOL)),
    ("5.3.1 of RFC 7540", "HEADERS on itself",
     frame(HEADERS, 5 | HAS_PRIORITY, 3, b"\0\0\0\x03\x10" + GET), RESET(3, PROTOCOL)),
    # -- frames -----------------------------------------------------------------------------
    ("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), GOAWAY(PROTOCOL)),
    ("6.1", "padding as long as the frame",
     post() + frame(DATA, PADDED, 1, b"\x04abcd"[:4]), GOAWAY(PROTOCOL)),
    ("6.1", "padding of everything but its length",
     post() + frame(DATA, PADDED | END_STREAM, 1, b"\x03abc"), OPEN),
    ("6.1", "PADDED without a byte", post() + frame(DATA, PADDED, 1), GOAWAY(SIZE)),
    ("6.2", "HEADERS on stream 0", request(0), GOAWAY(PROTOCOL)),
    ("6.2", "padding longer than the block",
     frame(HEADERS, 5 | PADDED, 1, b"\xff" + GET), GOAWAY(PROTOCOL)),
    ("6.2", "padding that fits", frame(HEADERS, 5 | PADDED, 1, b"\x02" + GET + b"\0\0"), OPEN),
    ("6.2", "PADDED without a byte", frame(HEADERS, 5 | PADDED, 1), GOAWAY(SIZE)),
    ("6.2", "a priority that is cut", frame(HEADERS, 5 | HAS_PRIORITY, 1, b"\0\0\0"), GOAWAY(SIZE)),
    ("6.2", "padding and priority",
     frame(HEADERS, 5 | PADDED | HAS_PRIORITY, 1, b"\x01\0\0\0\0\x10" + GET + b"\0"), OPEN),
    ("6.3", "PRIORITY on stream 0", priority(0, 1), GOAWAY(PROTOCOL)),
    ("6.3", "PRIORITY of another size, open",
     post() + frame(PRIORITY, 0, 1, b"\0\0\0\0"), RESET(1, SIZE)),
    ("6.3", "PRIORITY of another size, idle", frame(PRIORITY, 0, 1, bytes(6)), GOAWAY(SIZE)),
    ("6.4", "RST_STREAM on stream 0", reset(0), GOAWAY(PROTOCOL)),
    ("6.4", "RST_STREAM of another size",
     post() + frame(RST_STREAM, 0, 1, b"\0\0\0"), GOAWAY(SIZE)),
    ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1), GOAWAY(PROTOCOL)),
    ("6.5", "an acknowledgement that says something",
     frame(SETTINGS, ACK, 0, bytes(6)), GOAWAY(SIZE)),
    ("6.5", "SETTINGS of an odd size", frame(SETTINGS, 0, 0, bytes(5)), GOAWAY(SIZE)),
    ("6.5.2", "ENABLE_PUSH of 2", setting(2, 2), GOAWAY(PROTOCOL)),
    ("6.5.2", "ENABLE_PUSH of 1", setting(2, 1), OPEN),
    ("6.5.2", "INITIAL_WINDOW_SIZE beyond its end", setting(4, 1 << 31), GOAWAY(FLOW)),
    ("6.5.2", "INITIAL_WINDOW_SIZE at its end", setting(4, (1 << 31) - 1), OPEN),
    ("6.5.2", "MAX_FRAME_SIZE too small", setting(5, 16383), GOAWAY(PROTOCOL)),
    ("6.5.2", "MAX_FRAME_SIZE too large", setting(5, 1 << 24), GOAWAY(PROTOCOL)),
    ("6.5.2", "an unknown setting", setting(0xFF00, 7), OPEN),
    ("6.6", "PUSH_PROMISE of a client, of which only the head came",
     post() + frame(PUSH_PROMISE, 4, 1, bytes(4) + GET)[:9], GOAWAY(PROTOCOL)),
    ("6.6", "PUSH_PROMISE of a client",
     post() + frame(PUSH_PROMISE, 4, 1, bytes(4) + GET), GOAWAY(PROTOCOL)),
    ("6.7", "PING on a stream", post() + frame(PING, 0, 1, bytes(8)), GOAWAY(PROTOCOL)),
    ("6.7", "PING of another size", frame(PING, 0, 0, bytes(6)), GOAWAY(SIZE)),
    ("6.7", "an answer to no PING", frame(PING, ACK, 0, bytes(8)), OPEN),
    ("6.8", "GOAWAY on a stream", post() + frame(GOAWAY_FRAME, 0, 1, bytes(8)), GOAWAY(PROTOCOL)),
    ("6.8", "GOAWAY that is cut", frame(GOAWAY_FRAME, 0, 0, bytes(7)), GOAWAY(SIZE)),
    ("6.9", "a WINDOW_UPDATE of nothing, connection", update(0, 0), GOAWAY(PROTOCOL)),
    ("6.9", "a WINDOW_UPDATE of nothing, stream", post() + update(1, 0), RESET(1, PROTOCOL)),
    ("6.9", "WINDOW_UPDATE of another size", frame(WINDOW_UPDATE, 0, 0, bytes(3)), GOAWAY(SIZE)),
    ("6.9.1", "a connection's window beyond its end",
     update(0, (1 << 31) - 1) * 2, GOAWAY(FLOW)),
    ("6.9.1", "a stream's window beyond its end",
     post() + update(1, (1 << 31) - 1) * 2, RESET(1, FLOW)),
    ("6.9.1", "more DATA than the stream's window",
     post() + frame(DATA, 0, 1, bytes(16384)) * 5, RESET(1, FLOW)),
    ("6.9.2", "a window that SETTINGS move beyond its end",
     post() + update(1, (1 << 31) - 1 - 65535) + setting(4, 65536), GOAWAY(FLOW)),
    ("6.10", "CONTINUATION behind a whole block",
     request() + frame(CONTINUATION, 4, 1, GET), GOAWAY(PROTOCOL)),
    ("6.10", "CONTINUATION on stream 0",
     frame(HEADERS, 1, 1, GET) + frame(CONTINUATION, 4, 0, b""), GOAWAY(PROTOCOL)),
    ("6.10", "CONTINUATION of another stream",
     frame(HEADERS, 1, 1, GET) + frame(CONTINUATION, 4, 3, b""), GOAWAY(PROTOCOL)),
    ("6.10", "a block in several frames",
     frame(HEADERS, 1, 1, GET[:2]) + frame(CONTINUATION, 0, 1, GET[2:3]) * 1
     + frame(CONTINUATION, 0, 1) + frame(CONTINUATION, 4, 1, GET[3:]), OPEN),
    ("6.10", "a block in more frames than we allow",
     frame(HEADERS, 1, 1, GET) + frame(CONTINUATION, 0, 1) * 20, GOAWAY(CALM)),
    ("6.10", "a block that grows for ever",
     frame(HEADERS, 1, 1, GET) + frame(CONTINUATION, 0, 1, bytes(16000)) * 5, GOAWAY(CALM)),
    ("7", "GOAWAY with an unknown code",
     frame(GOAWAY_FRAME, 0, 0, struct.pack(">II", 0, 0xFF)), OPEN),
    ("7", "RST_STREAM with an unknown code", post() + reset(1, 0xFF), OPEN),
    # -- messages ---------------------------------------------------------------------------
    ("8.1", "a second HEADERS without END_STREAM",
     post() + frame(HEADERS, 4, 1, field(b"a", b"b")), RESET(1, PROTOCOL)),
    ("8.1", "trailers", post() + request(1, field(b"a", b"b")), OPEN),
    ("8.1", "trailers with a pseudo-field", post() + request(1, METHOD), RESET(1, PROTOCOL)),
    ("8.1.1", "content-length above the DATA",
     post(1, field(b"content-length", b"2")) + frame(DATA, 1, 1, b"x"), RESET(1, PROTOCOL)),
    ("8.1.1", "content-length below the DATA",
     post(1, field(b"content-length", b"1")) + frame(DATA, 1, 1, b"xy"), RESET(1, PROTOCOL)),
    ("8.1.1", "content-length below several DATA",
     post(1, field(b"content-length", b"1")) + frame(DATA, 0, 1, b"x") + frame(DATA, 1, 1, b"y"),
     RESET(1, PROTOCOL)),
    ("8.1.1", "content-length and no DATA",
     malformed(field(b"content-length", b"1")), RESET(1, PROTOCOL)),
    ("8.1.1", "content-length and only trailers",
     post(1, field(b"content-length", b"1")) + request(1, field(b"a", b"b")), RESET(1, PROTOCOL)),
    ("8.1.1", "content-length of the DATA",
     post(1, field(b"content-length", b"2")) + frame(DATA, 0, 1, b"x") + frame(DATA, 1, 1, b"y"),
     OPEN),
    ("8.1.1", "padding does not count",
     post(1, field(b"content-length", b"1")) + frame(DATA, 1 | PADDED, 1, b"\x02x\0\0"), OPEN),
    ("8.2.1", "a name in upper case", malformed(field(b"X-Test", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "a name with a space", malformed(field(b"a b", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "a name with a colon", malformed(field(b"a:b", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "a name with a line end", malformed(field(b"a\r\nb", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "no name", malformed(field(b"", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "a name beyond ASCII", malformed(field(b"\xe9", b"a")), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with CR", malformed(field(b"a", b"b\rc")), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with LF", malformed(field(b"a", b"b\nc")), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with another control byte", malformed(field(b"a", b"b\x01c")), OPEN),
    ("8.2.1", "a content-length with a control byte",
     malformed(field(b"content-length", b"\x0b0")), RESET(1, PROTOCOL)),
    ("8.2.1", "a path with a control byte",
     request(1, METHOD + SCHEME + field(b":path", b"/\x01") + HOST), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with NUL", malformed(field(b"a", b"b\0c")), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with a space before it", malformed(field(b"a", b" b")), RESET(1, PROTOCOL)),
    ("8.2.1", "a value with a tab behind it", malformed(field(b"a", b"b\t")), RESET(1, PROTOCOL)),
    ("8.2.1", "a path with a line end",
     request(1, METHOD + SCHEME + field(b":path", b"/\r\na: b") + HOST), RESET(1, PROTOCOL)),
    ("8.2.1", "a method with a line end",
     request(1, field(b":method", b"GET / HTTP/1.1\r\na: b") + SCHEME + PATH + HOST),
     RESET(1, PROTOCOL)),
    ("8.2.2", "connection", malformed(field(b"connection", b"close")), RESET(1, PROTOCOL)),
    ("8.2.2", "keep-alive", malformed(field(b"keep-alive", b"1")), RESET(1, PROTOCOL)),
    ("8.2.2", "proxy-connection", malformed(field(b"proxy-connection", b"x")), RESET(1, PROTOCOL)),
    ("8.2.2", "transfer-encoding",
     malformed(field(b"transfer-encoding", b"chunked")), RESET(1, PROTOCOL)),
    ("8.2.2", "upgrade", malformed(field(b"upgrade", b"h2c")), RESET(1, PROTOCOL)),
    ("8.2.2", "te of anything else", malformed(field(b"te", b"trailers, deflate")),
     RESET(1, PROTOCOL)),
    ("8.2.2", "te: trailers", malformed(field(b"te", b"trailers")), OPEN),
    ("8.2.2", "transfer-encoding in trailers",
     post() + request(1, field(b"transfer-encoding", b"chunked")), RESET(1, PROTOCOL)),
    ("8.3", "an unknown pseudo-field", request(1, field(b":test", b"a") + GET), RESET(1, PROTOCOL)),
    ("8.3", "a pseudo-field of answers", request(1, GET + b"\x88"), RESET(1, PROTOCOL)),
    ("8.3", "a pseudo-field behind a regular one",
     request(1, METHOD + SCHEME + HOST + field(b"a", b"b") + PATH), RESET(1, PROTOCOL)),
    ("8.3.1", "an empty :path",
     request(1, METHOD + SCHEME + field(b":path", b"") + HOST), RESET(1, PROTOCOL)),
    ("8.3.1", "no :method", request(1, SCHEME + PATH + HOST), RESET(1, PROTOCOL)),
    ("8.3.1", "no :scheme", request(1, METHOD + PATH + HOST), RESET(1, PROTOCOL)),
    ("8.3.1", "no :path", request(1, METHOD + SCHEME + HOST), RESET(1, PROTOCOL)),
    ("8.3.1", "two :method", request(1, METHOD + GET), RESET(1, PROTOCOL)),
    ("8.3.1", "two :scheme", request(1, SCHEME + GET), RESET(1, PROTOCOL)),
    ("8.3.1", "two :path", request(1, PATH + GET), RESET(1, PROTOCOL)),
    ("8.3.1", "two :authority", request(1, HOST + GET), RESET(1, PROTOCOL)),
    ("8.5", "CONNECT with a path",
     request(1, field(b":method", b"CONNECT") + SCHEME + PATH + HOST), RESET(1, PROTOCOL)),
    ("8.5", "CONNECT without an authority",
     request(1, field(b":method", b"CONNECT")), RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "extended CONNECT", extended(), OPEN),
    ("4 of RFC 8441", "extended CONNECT, ended at once",
     request(1, CONNECT + WEBSOCKET + SCHEME + PATH + HOST), OPEN),
    ("4 of RFC 8441", "extended CONNECT of another protocol",
     extended(CONNECT + field(b":protocol", b"tcp") + SCHEME + PATH + HOST), OPEN),
    ("4 of RFC 8441", "bytes of a tunnel", extended() + frame(DATA, 0, 1, b"abc"), OPEN),
    ("4 of RFC 8441", ":protocol twice",
     extended(CONNECT + WEBSOCKET * 2 + SCHEME + PATH + HOST), RESET(1, PROTOCOL)),
    ("4 of RFC 8441", ":protocol without CONNECT", extended(WEBSOCKET + GET), RESET(1, PROTOCOL)),
    ("4 of RFC 8441", ":protocol behind a field",
     extended(CONNECT + SCHEME + PATH + HOST + field(b"a", b"b") + WEBSOCKET), RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "no :scheme", extended(CONNECT + WEBSOCKET + PATH + HOST),
     RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "no :path", extended(CONNECT + WEBSOCKET + SCHEME + HOST),
     RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "no :authority", extended(CONNECT + WEBSOCKET + SCHEME + PATH),
     RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "content-length",
     extended(CONNECT + WEBSOCKET + SCHEME + PATH + HOST + field(b"content-length", b"0")),
     RESET(1, PROTOCOL)),
    ("4 of RFC 8441", "upgrade", extended(CONNECT + WEBSOCKET + SCHEME + PATH + HOST
                                          + field(b"upgrade", b"websocket")), RESET(1, PROTOCOL)),
    ("content-length", "twice",
     malformed(field(b"content-length", b"0"), field(b"content-length", b"0")), RESET(1, PROTOCOL)),
    ("content-length", "with a sign", malformed(field(b"content-length", b"+0")),
     RESET(1, PROTOCOL)),
    ("content-length", "empty", malformed(field(b"content-length", b"")), RESET(1, PROTOCOL)),
    ("content-length", "a list", malformed(field(b"content-length", b"0,0")), RESET(1, PROTOCOL)),
    ("7.1 of RFC 9218", "PRIORITY_UPDATE",
     post() + frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\1u=1"), OPEN),
    ("7.1 of RFC 9218", "PRIORITY_UPDATE on a stream",
     post() + frame(PRIORITY_UPDATE, 0, 1, b"\0\0\0\1u=1"), GOAWAY(PROTOCOL)),
    ("7.1 of RFC 9218", "PRIORITY_UPDATE of stream 0",
     frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\0u=1"), GOAWAY(PROTOCOL)),
    ("7.1 of RFC 9218", "PRIORITY_UPDATE of a stream that is still to come",
     frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\5u=1"), OPEN),
    ("7.1 of RFC 9218", "PRIORITY_UPDATE that is cut",
     frame(PRIORITY_UPDATE, 0, 0, b"\0\0"), GOAWAY(SIZE)),
    # -- floods (10.5): limits of the test: 30 control frames, 10 resets ----------------------
    ("10.5", "PINGs", frame(PING, 0, 0, bytes(8)) * 40, GOAWAY(CALM)),
    ("10.5", "SETTINGS", frame(SETTINGS) * 40, GOAWAY(CALM)),
    ("10.5", "PRIORITYs", priority(1, 0) * 40, GOAWAY(CALM)),
    ("10.5", "unknown frames", frame(0x42) * 40, GOAWAY(CALM)),
    ("10.5", "empty DATA", post() + frame(DATA, 0, 1) * 40, GOAWAY(CALM)),
    ("10.5", "WINDOW_UPDATEs for nothing", update(0, 1) * 400, GOAWAY(CALM)),
    ("10.5", "streams that are cancelled at once",
     b"".join(request(i) + reset(i) for i in range(1, 40, 2)), GOAWAY(CALM)),
    ("10.5", "streams that we are made to cancel",
     b"".join(request(i) + update(i, 0) for i in range(1, 40, 2)), GOAWAY(CALM)),
    ("10.5.1", "a field that is too large", malformed(field(b"a", b"b" * 8193)), GOAWAY(CALM)),
    ("10.5.1", "a head that is too large",
     request(1, GET + b"\x40" + field(b"a", b"b" * 4000)[1:] + b"\xbe" * 8), GOAWAY(CALM)),
    ("10.5", "bodies that are not as long as was said, one after another",
     b"".join(post(i, field(b"content-length", b"1")) + frame(DATA, 1, i, b"xy")
              for i in range(1, 40, 2)), GOAWAY(CALM)),
    ("10.5", "requests that are malformed, one after another",
     b"".join(request(i, GET + field(b"A", b"")) for i in range(1, 40, 2)), GOAWAY(CALM)),
]

# What comes on stream 1 when it was answered whole before its request was: (clause, what it is,
# the request, what follows, the outcome). Our RESET(1, NO_ERROR) is no blame; it crosses these.
SIZED = post(1, field(b"content-length", b"4"))
ANSWERED_EARLY = [
    ("8.1", "the body that was announced", SIZED,
     frame(DATA, 0, 1, b"abc") + frame(DATA, END_STREAM, 1, b"d"), OPEN),
    ("8.1", "a body with trailers", post(),
     frame(DATA, 0, 1, b"abc") + request(1, field(b"x", b"y")), OPEN),
    ("8.1.1", "more than content-length", SIZED, frame(DATA, 0, 1, b"abcde"), RESET(1, PROTOCOL)),
    ("8.1.1", "more than content-length, in pieces", SIZED,
     frame(DATA, 0, 1, b"ab") + frame(DATA, 0, 1, b"cde"), RESET(1, PROTOCOL)),
    ("8.1.1", "less than content-length", SIZED, frame(DATA, END_STREAM, 1, b"abc"),
     RESET(1, PROTOCOL)),
    ("8.1.1", "trailers before content-length is there", SIZED,
     frame(DATA, 0, 1, b"a") + request(1, field(b"x", b"y")), RESET(1, PROTOCOL)),
    ("8.1", "trailers that end nothing", post(),
     request(1, field(b"x", b"y"), END_HEADERS), RESET(1, PROTOCOL)),
    ("8.3", "a pseudo-field in trailers", post(), request(1, field(b":method", b"GET")),
     RESET(1, PROTOCOL)),
    ("5.1", "DATA behind its end", post(),
     frame(DATA, END_STREAM, 1, b"a") + frame(DATA, END_STREAM, 1, b"a"), RESET(1, CLOSED)),
    ("5.1", "trailers behind its end", post(),
     frame(DATA, END_STREAM, 1) + request(1, field(b"a", b"b")), GOAWAY(CLOSED)),
    ("5.1.1", "a request behind its end", post(), frame(DATA, END_STREAM, 1) + request(1),
     GOAWAY(PROTOCOL)),
    ("5.1", "RST_STREAM", post(), reset(1), OPEN),
    ("5.1", "DATA behind RST_STREAM", post(), reset(1) + frame(DATA, END_STREAM, 1, b"a"),
     RESET(1, CLOSED)),
    ("5.1", "HEADERS behind RST_STREAM", post(), reset(1) + request(1), RESET(1, CLOSED)),
    ("6.9", "WINDOW_UPDATE", post(), update(1, 100), OPEN),
    ("6.9", "a WINDOW_UPDATE of nothing", post(), update(1, 0), RESET(1, PROTOCOL)),
    ("6.9.1", "more window than there may be", post(), update(1, (1 << 31) - 1) * 2,
     RESET(1, FLOW)),
    ("6.9", "a WINDOW_UPDATE of nothing where the request was whole", request(), update(1, 0),
     RESET(1, PROTOCOL)),
    ("10.5", "DATA without end", post(), frame(DATA, 0, 1, b"a") * 40, GOAWAY(CALM)),
]
