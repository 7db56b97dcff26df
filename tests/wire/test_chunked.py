"""Chunked bodies: any split gives the same payload, and nothing lenient passes."""

import h11
import pytest
from test_h1_requests import splits

from proxy.wire.h1_door import decode_chunked, encode_chunk

HELLO = b"5\r\nhello\r\n"
END = b"0\r\n\r\n"

GOOD_BODIES = {
    "empty": (END, b"", [], b""),
    "one chunk": (HELLO + END, b"hello", [], b""),
    "two chunks": (HELLO + b"6\r\n world\r\n" + END, b"hello world", [], b""),
    "what follows is the next message's": (HELLO + END + b"GET /", b"hello", [], b"GET /"),
    "hex in both cases": (
        b"A\r\n" + b"a" * 10 + b"\r\nb\r\n" + b"b" * 11 + b"\r\n" + END,
        b"a" * 10 + b"b" * 11, [], b"",
    ),
    "sixteen digits": (b"0000000000000005\r\nhello\r\n" + END, b"hello", [], b""),
    "many noughts end it": (HELLO + b"0000\r\n\r\n", b"hello", [], b""),
    "line ends in the payload": (b"4\r\n\r\n\r\n\r\n" + END, b"\r\n\r\n", [], b""),
    "extension": (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello", [], b""),
    "extensions": (b'5;a=b;c="d;\\"\\\\e";f\r\nhello\r\n' + END, b"hello", [], b""),
    "spaces where the RFC has them": (b"5 ; a = b\t;c\r\nhello\r\n" + END, b"hello", [], b""),
    "trailer": (
        HELLO + b"0\r\nX-Sum: 1 \r\nX-b:\r\n\r\n", b"hello", [(b"X-Sum", b"1"), (b"X-b", b"")], b"",
    ),
    "trailer, then the next message": (
        b"0\r\nA: b\r\n\r\nGET", b"", [(b"A", b"b")], b"GET",
    ),
    "names that no trailer may carry": (
        b"0\r\nHost: a\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\nTE: x\r\n"
        b"Connection: close\r\nAuthorization: x\r\nSet-Cookie: a\r\nTrailer: x\r\n"
        b"Content-Length: 6\r\nOK: 1\r\nCookie: a\r\n\r\n",
        b"", [(b"OK", b"1")], b"",
    ),
}

BAD_BODIES = {
    "no size": b"\r\nhello\r\n",
    "no size but an extension": b";a\r\nhello\r\n",
    "no hex": b"g\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "plus": b"+5\r\nhello\r\n",
    "minus": b"-5\r\nhello\r\n",
    "space before": b" 5\r\nhello\r\n",
    "space behind": b"5 \r\nhello\r\n",
    "tab behind": b"5\t\r\nhello\r\n",
    "underscore": b"5_0\r\n",
    "point": b"5.0\r\n",
    "comma": b"5,5\r\n",
    "quoted": b'"5"\r\n',
    "NUL": b"5\0\r\n",
    "high byte": b"5\xa0\r\n",
    "vertical tab": b"5\x0b\r\n",
    "seventeen digits": b"00000000000000005\r\nhello\r\n",
    "past 64 bits": b"10000000000000005\r\nhello\r\n",
    "the largest of 64 bits": b"ffffffffffffffff\r\nhello\r\n",
    "past 63 bits": b"8000000000000000\r\nhello\r\n",
    "bare LF behind the size": b"5\nhello\r\n" + END,
    "bare CR behind the size": b"5\rhello\r\n" + END,
    "CR CR LF behind the size": b"5\r\r\nhello\r\n" + END,
    "bare LF behind the data": b"5\r\nhello\n" + END,
    "bare CR behind the data": b"5\r\nhello\r" + END,
    "nothing behind the data": b"5\r\nhello" + END,
    "more data than said": b"5\r\nhello!\r\n" + END,
    "less data than said": b"6\r\nhello\r\n" + END,
    "an empty line between chunks": HELLO + b"\r\n" + END,
    "bare LF behind the last size": b"0\n\n",
    "bare LF as the last line": b"0\r\n\n",
    "bare CR as the last line": b"0\r\n\rX",
    "empty extension": b"5;\r\nhello\r\n",
    "extension without name": b"5;=a\r\nhello\r\n",
    "two semicolons": b"5;;a\r\nhello\r\n",
    "extension without value": b"5;a=\r\nhello\r\n",
    "two equals signs": b"5;a==b\r\nhello\r\n",
    "two words": b"5;a b\r\nhello\r\n",
    "space at the end of an extension": b"5;a \r\nhello\r\n",
    "bare LF in an extension": b"5;a\nhello\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n",
    "NUL in an extension": b"5;a\0\r\nhello\r\n",
    "control byte in an extension": b"5;\x01\r\nhello\r\n",
    "high byte in an extension": b"5;\xc3\r\nhello\r\n",
    "open quote": b'5;a="b\r\nhello\r\n',
    "bare LF in quotes": b'5;a="\n"\r\nhello\r\n',
    "NUL in quotes": b'5;a="\0"\r\nhello\r\n',
    "quoted CR": b'5;a="\\\r"\r\nhello\r\n',
    "word behind quotes": b'5;a="b"c\r\nhello\r\n',
    "quotes behind word": b'5;a=b"c"\r\nhello\r\n',
    "quoted name": b'5;"a"\r\nhello\r\n',
    "long extension": b"5;" + b"a" * 5000 + b"\r\nhello\r\n",
    "long extensions together": b"1;" + b"a" * 100 + b"\r\nx\r\n" + (
        b"1;" + b"a" * 100 + b"\r\nx\r\n") * 50,
    "trailer without colon": b"0\r\nX-A\r\n\r\n",
    "trailer with space before colon": b"0\r\nX-A : b\r\n\r\n",
    "trailer folded": b"0\r\nX-A: b\r\n c\r\n\r\n",
    "trailer folded at once": b"0\r\n X-A: b\r\n\r\n",
    "trailer with an empty name": b"0\r\n: b\r\n\r\n",
    "trailer with NUL": b"0\r\nX-A: \0\r\n\r\n",
    "trailer ends in LF": b"0\r\nX-A: b\n\r\n",
    "trailer ends in CR": b"0\r\nX-A: b\rX-B: c\r\n\r\n",
    "trailers end in LF": b"0\r\nX-A: b\r\n\n",
    "the next request where a trailer is due": b"0\r\nGET / HTTP/1.1\r\n\r\n",
}


def dribbles(data: bytes):
    """All splits of a short body, some of a long one."""
    return splits(data) if len(data) < 400 else [[data[i : i + 1] for i in range(len(data))]]


@pytest.mark.parametrize("name", GOOD_BODIES)
def test_good_body(name):
    data, *said = GOOD_BODIES[name]
    assert decode_chunked([data]) == tuple(said)
    for pieces in splits(data):
        assert decode_chunked(pieces) == tuple(said), pieces
    payload, _, rest = said
    assert decode_chunked([data], keep_trailers=False) == (payload, [], rest)


@pytest.mark.parametrize("name", GOOD_BODIES)
def test_no_body_is_over_too_early(name):
    data, _, _, rest = GOOD_BODIES[name]
    for end in range(len(data) - len(rest)):
        assert decode_chunked([data[:end]]) is None


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_body(name):
    data = BAD_BODIES[name]
    assert decode_chunked([data]) == "BAD_CHUNK"
    for pieces in dribbles(data):
        assert decode_chunked(pieces) == "BAD_CHUNK", pieces


@pytest.mark.parametrize("keep", [True, False])
def test_the_trailer_section_is_bounded(keep):
    data = b"0\r\n" + b"X-A: b\r\n" * 10 + b"\r\n"
    assert len(decode_chunked([data], 82)[1]) == 10
    for cap in (81, 40, 0):
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            assert decode_chunked(pieces, cap, keep) == "HEAD_TOO_LARGE"
    assert decode_chunked([END], 0, keep) == (b"", [], b"")


def test_too_many_trailer_fields():
    assert decode_chunked([b"0\r\n" + b"A: b\r\n" * 100 + b"\r\n"]) == "BAD_CHUNK"


def test_a_huge_chunk_passes_in_pieces():
    assert decode_chunked([b"7fffffffffffffff\r\n", b"a" * 100, b"b" * 100]) is None


@pytest.mark.parametrize("size", [1, 9, 15, 16, 255, 256, 4095, 65536])
def test_what_we_write_h11_and_we_can_read(size):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    body = encode_chunk(data) + encode_chunk(b"")
    assert decode_chunked([body]) == (data, [], b"")
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    got = b""
    while type(event := server.next_event()) is not h11.EndOfMessage:
        if isinstance(event, h11.Data):
            got += event.data
    assert got == data
