"""Response heads: what an upstream may say, and what makes it a 502."""

import h11
import pytest
from bad_responses import BAD_RESPONSES
from test_h1_requests import splits

from proxy.wire.h1_door import Reader, parse, parse_response


def response(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


OK = b"HTTP/1.1 200 OK"

GOOD_RESPONSES = {
    "least": (
        response(OK),
        {"status": 200, "reason": b"OK", "version": 11, "body": "until_close",
         "flags": {"keep_alive"}},
    ),
    "length": (response(OK, b"Content-Length: 5"), {"length": 5, "body": "length"}),
    "length 0": (response(OK, b"Content-Length: 0"), {"length": 0, "body": "none"}),
    "chunked": (response(OK, b"transfer-encoding: chunked"), {"body": "chunked"}),
    "HTTP/1.0": (response(b"HTTP/1.0 200 OK"), {"version": 10, "flags": set()}),
    "HTTP/1.0 kept": (
        response(b"HTTP/1.0 200 OK", b"Connection: keep-alive", b"Content-Length: 1"),
        {"flags": {"keep_alive"}},
    ),
    "close": (response(OK, b"Connection: close"), {"flags": {"close"}}),
    "no reason": (response(b"HTTP/1.1 200"), {"status": 200, "reason": b""}),
    "empty reason": (response(b"HTTP/1.1 200 "), {"status": 200, "reason": b""}),
    "long reason": (
        response(b"HTTP/1.1 404 Not \t \xc3\xa4 Found (really!)"),
        {"status": 404, "reason": b"Not \t \xc3\xa4 Found (really!)"},
    ),
    "unknown status": (response(b"HTTP/1.1 999 x"), {"status": 999}),
    "bare LF": (
        b"HTTP/1.1 200 OK\nServer: x\n\nbody",
        {"size": 27, "fields": [(b"Server", b"x")], "ids": [14]},
    ),
    "100": (response(b"HTTP/1.1 100 Continue"), {"status": 100, "body": "none"}),
    "103": (response(b"HTTP/1.1 103 Early Hints", b"Link: </a>"), {"body": "none"}),
    "101": (
        response(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket",
                 b"Connection: Upgrade"),
        {"status": 101, "body": "none", "flags": {"keep_alive", "upgrade"}},
    ),
    "204 with a length": (
        response(b"HTTP/1.1 204 No Content", b"Content-Length: 5"), {"body": "none"},
    ),
    "304 with a length": (
        response(b"HTTP/1.1 304 Not Modified", b"Content-Length: 5"),
        {"body": "none", "length": 5},
    ),
    "odd names": (
        response(OK, b"x_a: 1", b"x.b: 2", b"X!: 3"),
        {"fields": [(b"x_a", b"1"), (b"x.b", b"2"), (b"X!", b"3")]},
    ),
    "repeated fields stay": (
        response(OK, b"Set-Cookie: a", b"Set-Cookie: b", b"Expires: c", b"Expires: d"),
        {"fields": [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Expires", b"c"),
                    (b"Expires", b"d")]},
    ),
    "hop-by-hop": (
        response(OK, b"Connection: X-A", b"X-A: 1", b"Keep-Alive: x", b"Proxy-Authenticate: x"),
        {"hop": [b"Connection", b"X-A", b"Keep-Alive", b"Proxy-Authenticate"]},
    ),
    "framing cannot be named away": (
        response(OK, b"Content-Length: 5", b"Connection: Content-Length, X-A", b"X-A: b"),
        {"hop": [b"Connection", b"X-A"], "length": 5},
    ),
    "a Host means nothing here": (response(OK, b"Host: a b", b"Host: c"), {"status": 200}),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_response(name):
    assert parse_response(BAD_RESPONSES[name]) == "UPSTREAM_BAD_HEAD"


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_response_split(name):
    for pieces in splits(BAD_RESPONSES[name]):
        assert parse(Reader(is_response=True), pieces) == "UPSTREAM_BAD_HEAD", pieces


def test_the_table_is_large():
    assert len(BAD_RESPONSES) >= 40


@pytest.mark.parametrize("name", GOOD_RESPONSES)
def test_good_response(name):
    data, says = GOOD_RESPONSES[name]
    message = parse_response(data)
    assert isinstance(message, dict), message
    assert {key: message[key] for key in says} == says
    assert message["stray_flags"] == 0
    for pieces in splits(data):
        assert parse(Reader(is_response=True), pieces) == message, pieces
    for end in range(message["size"]):
        assert parse_response(data[:end]) is None


@pytest.mark.parametrize(
    "lines", [[b"Content-Length: 5"], [b"Transfer-Encoding: chunked"], []]
)
def test_the_answer_to_head_has_no_body(lines):
    assert parse_response(response(OK, *lines), is_head_request=True)["body"] == "none"


@pytest.mark.parametrize(
    "limits",
    [{"max_head": 64}, {"max_line": 40}, {"max_fields": 2}, {"max_line": 10}, {"max_head": 10}],
)
def test_too_large_a_head(limits):
    data = response(OK, b"A: b", b"X-A: " + b"a" * 60, b"C: d")
    assert parse_response(data, **limits) == "UPSTREAM_HEAD_TOO_LARGE"
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert parse(Reader(is_response=True, **limits), pieces) == "UPSTREAM_HEAD_TOO_LARGE"


@pytest.mark.parametrize(
    "name", sorted(GOOD_RESPONSES.keys() - {"unknown status", "framing cannot be named away"})
)
def test_h11_reads_the_same(name):
    data, _ = GOOD_RESPONSES[name]
    ours = parse_response(data)
    client = h11.Connection(h11.CLIENT)
    lines = [("Host", "a")]
    if ours["status"] == 101:
        lines += [("Upgrade", "websocket"), ("Connection", "upgrade")]
    client.send(h11.Request(method="GET", target="/", headers=lines))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    assert (event.status_code, event.reason) == (ours["status"], ours["reason"])
    assert [k for k, _ in event.headers] == [k.lower() for k, _ in ours["fields"]]
