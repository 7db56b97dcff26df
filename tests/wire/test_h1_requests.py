"""Request heads: what is understood, what is refused, the same for every split."""

import h11
import pytest
from bad_requests import BAD_REQUESTS

from proxy.wire.h1_door import Reader, parse, parse_request


def splits(data: bytes):
    """The bytes in two pieces at every place, and one by one."""
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[i : i + 1] for i in range(len(data))]


def request(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


GET = b"GET / HTTP/1.1"
HOST = b"Host: a"

# name: (bytes, what the message says at least)
GOOD_REQUESTS = {
    "least": (
        request(GET, HOST),
        {"method": b"GET", "target": b"/", "path": b"/", "host": b"a", "version": 11,
         "flags": {"has_host", "keep_alive"}, "body": "none", "length": -1},
    ),
    "HTTP/1.0 without Host": (
        request(b"GET /a?b HTTP/1.0"),
        {"version": 10, "host": b"", "flags": set(), "path": b"/a?b"},
    ),
    "HTTP/1.0 kept": (
        request(b"GET / HTTP/1.0", b"Connection: Keep-Alive"), {"flags": {"keep_alive"}},
    ),
    "HTTP/1.7 is read as 1.1": (request(b"GET / HTTP/1.7", HOST), {"version": 11}),
    "bare LF": (
        b"GET / HTTP/1.1\nHost: a\nX-B: c\n\nrest",
        {"size": 31, "fields": [(b"Host", b"a"), (b"X-B", b"c")]},
    ),
    "empty lines first": (
        b"\r\n\n\r\n" + request(GET, HOST), {"line": GET, "size": 32},
    ),
    "white space around values": (
        request(GET, b"Host:a", b"A: \t b c \t", b"B:", b"C: \t "),
        {"fields": [(b"Host", b"a"), (b"A", b"b c"), (b"B", b""), (b"C", b"")]},
    ),
    "obs-text and tab in a value": (
        request(GET, HOST, b"A: \xc3\xa4\t\xff"),
        {"fields": [(b"Host", b"a"), (b"A", b"\xc3\xa4\t\xff")]},
    ),
    "long value": (
        request(GET, HOST, b"Cookie: " + b"x" * 500),
        {"fields": [(b"Host", b"a"), (b"Cookie", b"x" * 500)], "ids": [1, 38]},
    ),
    "names of 15, 16 and 17 letters": (
        request(GET, HOST, b"a" * 15 + b": 1", b"b" * 16 + b": 2", b"c" * 17 + b": 3"),
        {"fields": [(b"Host", b"a"), (b"a" * 15, b"1"), (b"b" * 16, b"2"), (b"c" * 17, b"3")]},
    ),
    "another method": (
        request(b"M-SEARCH_X / HTTP/1.1", HOST), {"method": b"M-SEARCH_X", "method_id": 0},
    ),
    "body by length": (
        request(b"PUT / HTTP/1.1", HOST, b"content-length: 007"),
        {"length": 7, "body": "length", "method_id": 4},
    ),
    "length of 18 digits": (
        request(b"POST / HTTP/1.1", HOST, b"Content-Length: 999999999999999999"),
        {"length": 999999999999999999},
    ),
    "length 0": (
        request(b"POST / HTTP/1.1", HOST, b"Content-Length: 0"), {"length": 0, "body": "none"},
    ),
    "chunked": (
        request(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: ChunkeD \t"),
        {"body": "chunked", "flags": {"has_host", "keep_alive", "chunked"},
         "hop": [b"Transfer-Encoding"]},
    ),
    "body on GET": (
        request(GET, HOST, b"Content-Length: 3"), {"length": 3, "body": "length"},
    ),
    "expect": (
        request(b"POST / HTTP/1.1", HOST, b"Expect: 100-Continue"),
        {"flags": {"has_host", "keep_alive", "expect_continue"}},
    ),
    "expect in 1.0 means nothing": (
        request(b"POST / HTTP/1.0", b"Expect: 100-continue"), {"flags": set()},
    ),
    "another expectation": (
        request(b"POST / HTTP/1.1", HOST, b"Expect: x"), {"flags": {"has_host", "keep_alive"}},
    ),
    "close": (
        request(GET, HOST, b"Connection: Close"), {"flags": {"has_host", "close"}},
    ),
    "close wins": (
        request(GET, HOST, b"Connection: keep-alive", b"Connection: close"),
        {"flags": {"has_host", "close"}},
    ),
    "close in a list": (
        request(GET, HOST, b"Connection: ,, foo ,\tclose\t,"), {"flags": {"has_host", "close"}},
    ),
    "closely": (
        request(GET, HOST, b"Connection: closely"), {"flags": {"has_host", "keep_alive"}},
    ),
    "fields that Connection names": (
        request(GET, HOST, b"X-B: 1", b"Connection: x-a, X-C", b"X-A: 1", b"x-b: 2", b"X-a: 3"),
        {"hop": [b"Connection", b"X-A", b"X-a"]},
    ),
    "hop-by-hop by name": (
        request(
            GET, HOST, b"Keep-Alive: 5", b"Proxy-Connection: close", b"TE: gzip, Trailers;q=1",
            b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", b"Proxy-Authorization: x",
        ),
        {"hop": [b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade", b"HTTP2-Settings",
                 b"Proxy-Authorization"],
         "flags": {"has_host", "keep_alive", "te_trailers"}},
    ),
    "TE without trailers": (
        request(GET, HOST, b"TE: xtrailers"), {"flags": {"has_host", "keep_alive"}},
    ),
    "announced trailer": (
        request(b"POST / HTTP/1.1", HOST, b"Trailer: X-Sum", b"Transfer-Encoding: chunked"),
        {"flags": {"has_host", "keep_alive", "chunked", "has_trailer"}},
    ),
    "upgrade": (
        request(GET, HOST, b"Upgrade: websocket", b"Connection: keep-alive, Upgrade"),
        {"flags": {"has_host", "keep_alive", "upgrade"}},
    ),
    "upgrade not in Connection": (
        request(GET, HOST, b"Upgrade: websocket"), {"flags": {"has_host", "keep_alive"}},
    ),
    "upgrade without a protocol": (
        request(GET, HOST, b"Connection: upgrade"), {"flags": {"has_host", "keep_alive"}},
    ),
    "upgrade to h2c is not carried on": (
        request(GET, HOST, b"Upgrade: websocket, h2c", b"Connection: upgrade"),
        {"flags": {"has_host", "keep_alive"}},
    ),
    "upgrade in 1.0": (
        request(b"GET / HTTP/1.0", b"Upgrade: websocket", b"Connection: upgrade"),
        {"flags": set()},
    ),
    "absolute form": (
        request(b"GET http://b:80/c?d HTTP/1.1", HOST),
        {"path": b"/c?d", "host": b"b:80", "flags": {"has_host", "keep_alive", "absolute"},
         "target": b"http://b:80/c?d"},
    ),
    "absolute form, Host first seen later": (
        request(b"GET http://b/ HTTP/1.1", b"X-A: 1", b"Host: c"), {"host": b"b"},
    ),
    "absolute form without path": (
        request(b"GET http://b HTTP/1.1", HOST), {"path": b"/", "host": b"b"},
    ),
    "absolute form with query only": (
        request(b"GET http://b?c HTTP/1.1", HOST), {"path": b"?c", "host": b"b"},
    ),
    "absolute form with a stray colon": (
        request(b"GET http://b.c:/ HTTP/1.0"), {"path": b"/", "host": b"b.c:"},
    ),
    "absolute form, IPv6": (
        request(b"GET https://[::1]:443/ HTTP/1.1", HOST), {"path": b"/", "host": b"[::1]:443"},
    ),
    "authority form": (
        request(b"CONNECT b:443 HTTP/1.1", HOST),
        {"method_id": 9, "path": b"/", "host": b"b:443"},
    ),
    "authority form, IPv6": (
        request(b"CONNECT [::1]:443 HTTP/1.1", HOST), {"host": b"[::1]:443"},
    ),
    "dots, percents, fragments and high bytes are routing's": (
        request(b"GET /../%zz/%00#\xc3\xa4\"<> HTTP/1.1", HOST),
        {"path": b"/../%zz/%00#\xc3\xa4\"<>"},
    ),
    "Host with port": (request(GET, b"Host: A.b-c_d:8080"), {"host": b"A.b-c_d:8080"}),
    "Host with a last dot": (request(GET, b"Host: a.b.:88"), {"host": b"a.b.:88"}),
    "Host with a stray colon": (request(GET, b"Host: a:"), {"host": b"a:"}),
    "Host IPv6": (request(GET, b"Host: [::ffff:12.30.67.89]:80"),
                  {"host": b"[::ffff:12.30.67.89]:80"}),
    "Host IPvFuture": (request(GET, b"Host: [v1aF.!$&'()*+,;=-._~a:]"),
                       {"host": b"[v1aF.!$&'()*+,;=-._~a:]"}),
    "ignored names": (
        request(GET, HOST, b"x_foo: 1", b"_foo: 2", b"x.foo: 3", b"x!: 4", b"X-9: 5"),
        {"fields": [(b"Host", b"a"), (b"X-9", b"5")]},
    ),
    "underscored framing is no framing": (
        request(GET, HOST, b"Content_Length: 5", b"Transfer_Encoding: chunked"),
        {"body": "none", "length": -1},
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_request(name):
    data, outcome = BAD_REQUESTS[name]
    assert parse_request(data) == outcome


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_request_split(name):
    data, outcome = BAD_REQUESTS[name]
    for pieces in splits(data):
        assert parse(Reader(), pieces) == outcome, pieces


def test_the_table_is_large():
    assert len(BAD_REQUESTS) >= 150


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_good_request(name):
    data, says = GOOD_REQUESTS[name]
    message = parse_request(data)
    assert isinstance(message, dict), message
    assert {key: message[key] for key in says} == says
    assert message["stray_flags"] == 0


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_good_request_split(name):
    data, _ = GOOD_REQUESTS[name]
    whole = parse_request(data)
    for pieces in splits(data):
        assert parse(Reader(), pieces) == whole, pieces


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_no_head_is_complete_too_early(name):
    data, _ = GOOD_REQUESTS[name]
    size = parse_request(data)["size"]
    for end in range(size):
        assert parse_request(data[:end]) is None


# h11 asks for one Host in 1.1 too, and knows neither these targets nor 1.7
H11_DIFFERS = {
    "HTTP/1.7 is read as 1.1", "dots, percents, fragments and high bytes are routing's",
    "empty lines first", "absolute form, IPv6",
}


@pytest.mark.parametrize("name", sorted(GOOD_REQUESTS.keys() - H11_DIFFERS))
def test_h11_reads_the_same(name):
    data, _ = GOOD_REQUESTS[name]
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    event = server.next_event()
    ours = parse_request(data, ignore_invalid=False)
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (ours["method"], ours["target"])
    lowered = [(key.lower(), value) for key, value in ours["fields"]]
    theirs = list(event.headers)
    for key, value in lowered:
        if key in (b"transfer-encoding", b"content-length"):  # h11 writes these its own way
            value = dict(theirs)[key]
        assert (key, value) in theirs
    assert len(lowered) == len(theirs)


@pytest.mark.parametrize("field", [b"x_foo: 1", b"_foo: 1", b"x.foo: 1", b".foo: 1"])
def test_invalid_names_pass_when_told(field):
    data = request(GET, HOST, field)
    told = parse_request(data, ignore_invalid=False)
    assert len(told["fields"]) == 2
    assert len(parse_request(data)["fields"]) == 1
    underscored = parse_request(data, underscores_allowed=True)
    assert len(underscored["fields"]) == (2 if b"_" in field else 1)


@pytest.mark.parametrize("split", [False, True])
class TestLimits:
    def outcome(self, data, split, **limits):
        pieces = [data[i : i + 1] for i in range(len(data))] if split else [data]
        said = parse(Reader(**limits), pieces)
        return "ok" if isinstance(said, dict) else said

    def test_request_line(self, split):
        fits = b"GET /" + b"a" * (64 - 16) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        assert len(fits.split(b"\n")[0]) + 1 == 64
        assert self.outcome(fits, split, max_line=64) == "ok"
        assert self.outcome(fits, split, max_line=63) == "URI_TOO_LARGE"
        assert self.outcome(b"GET /" + b"a" * 100, split, max_line=64) == "URI_TOO_LARGE"

    def test_field_line(self, split):
        fits = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 57 + b"\r\n\r\n"
        assert self.outcome(fits, split, max_line=64) == "ok"
        assert self.outcome(fits, split, max_line=63) == "HEAD_TOO_LARGE"
        long_name = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 100
        assert self.outcome(long_name, split, max_line=64) == "HEAD_TOO_LARGE"

    def test_name_longer_than_its_counter(self, split):
        if split:
            return  # 70,000 pieces would show nothing more
        data = request(GET, HOST, b"a" * 70000 + b": b")
        sizes = {"max_line": 1 << 20, "max_head": 1 << 20}
        assert self.outcome(data, split, **sizes) == "HEAD_TOO_LARGE"

    def test_head(self, split):
        data = request(GET, HOST, *[b"X-A: aaaaaaaa"] * 20)
        assert self.outcome(data, split, max_head=len(data)) == "ok"
        for size in (len(data) - 1, len(data) - 2, len(data) - 3, 100):
            assert self.outcome(data, split, max_head=size) == "HEAD_TOO_LARGE"
        assert self.outcome(data, split, max_head=10) == "URI_TOO_LARGE"

    def test_fields(self, split):
        data = request(GET, HOST, *[b"X-Blah: 1"] * 4, b"x_ignored: 1")
        assert self.outcome(data, split, max_fields=5) == "ok"
        assert self.outcome(data, split, max_fields=4) == "TOO_MANY_FIELDS"


def test_bytes_behind_the_head_are_not_looked_at():
    data = request(b"POST / HTTP/1.1", HOST, b"Content-Length: 3")
    for rest in (b"", b"\0\0\0", b"\r\nGET", b" folded"):
        assert parse_request(data + rest)["size"] == len(data)
