"""What RFC 9114 asks of heads and bodies: a request that breaks it ends its stream, no more."""

from __future__ import annotations

import pytest
from aioquic.buffer import encode_uint_var
from h3client import H3Client
from recorder import Recorder

MESSAGE_ERROR, EXCESSIVE_LOAD, FRAME_UNEXPECTED, FRAME_ERROR = 0x10E, 0x107, 0x105, 0x106
QPACK_FAILED, SETTINGS_ERROR, STREAM_CREATION = 0x200, 0x109, 0x103
SITE = "location / { return 200 $request_method$uri; }"
METHOD, SCHEME = (":method", "GET"), (":scheme", "https")
PATH, AUTHORITY = (":path", "/"), (":authority", "a.test")
GOOD = [METHOD, SCHEME, PATH, AUTHORITY]

MALFORMED = {
    "no method": [SCHEME, PATH, AUTHORITY],
    "no scheme": [METHOD, PATH, AUTHORITY],
    "no path": [METHOD, SCHEME, AUTHORITY],
    "empty path": [METHOD, SCHEME, (":path", ""), AUTHORITY],
    "method twice": [METHOD, *GOOD],
    "path twice": [*GOOD, PATH],
    "pseudo behind a field": [METHOD, SCHEME, PATH, ("x-a", "1"), AUTHORITY],
    "of an answer": [*GOOD, (":status", "200")],
    "unknown pseudo": [*GOOD, (":odd", "1")],
    "upper case": [*GOOD, ("X-A", "1")],
    "a name with a space": [*GOOD, ("x a", "1")],
    "a name with a colon": [*GOOD, ("x:a", "1")],
    "a line's end": [*GOOD, ("x-a", "1\r\nx-b: 2")],
    "a NUL": [*GOOD, ("x-a", "1\x002")],
    "a path with a line's end": [METHOD, SCHEME, (":path", "/\r\nx: y"), AUTHORITY],
    "connection": [*GOOD, ("connection", "close")],
    "keep-alive": [*GOOD, ("keep-alive", "1")],
    "proxy-connection": [*GOOD, ("proxy-connection", "close")],
    "transfer-encoding": [*GOOD, ("transfer-encoding", "chunked")],
    "upgrade": [*GOOD, ("upgrade", "websocket")],
    "te": [*GOOD, ("te", "gzip")],
    "length and no body": [*GOOD, ("content-length", "5")],
    "a length that is none": [*GOOD, ("content-length", "+1")],
    "two lengths": [*GOOD, ("content-length", "0"), ("content-length", "0")],
}
REFUSED = {
    "two hosts": ([*GOOD, ("host", "b.test")], 400),
    "no host": ([METHOD, SCHEME, PATH], 400),
    "a host that is none": ([METHOD, SCHEME, PATH, (":authority", "a b")], 400),
    "a path without a slash": ([METHOD, SCHEME, (":path", "x"), AUTHORITY], 400),
    "a long path": ([METHOD, SCHEME, (":path", "/" + "a" * 9000), AUTHORITY], 414),
    "a long field": ([*GOOD, ("x-a", "a" * 9000)], 400),
    "many fields": ([*GOOD, *[("x-a", "1")] * 20], 400),
    "trace": ([(":method", "TRACE"), SCHEME, PATH, AUTHORITY], 405),
    "connect": ([(":method", "CONNECT"), AUTHORITY], 405),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory, request):
    """One client of one gateway: what each case does must not be noticed by the next."""
    from gateway import Gateway

    folder = request.getfixturevalue("certificates")
    gateway = Gateway(tmp_path_factory.mktemp("heads"), f"""
        ssl_certificate {folder}/a.crt; ssl_certificate_key {folder}/a.key; max_headers 16;
        server {{ listen 127.0.0.1:%%PORT%% quic; http3_max_resets 1000; {SITE} }}""").start()
    with H3Client(gateway.port) as made:
        yield made
    gateway.stop()
    assert "Traceback" not in gateway.said and "[alert]" not in gateway.said, gateway.said


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head_ends_its_stream_alone(client: H3Client, name: str) -> None:
    response = client.read(client.ask_raw(MALFORMED[name]))
    assert (response.status, response.code) == (400, None)
    assert client.get("/next").text == "GET/next"


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_that_is_understood_and_refused(client: H3Client, name: str) -> None:
    block, status = REFUSED[name]
    response = client.read(client.ask_raw(block))
    assert (response.status, response.code) == (status, None)
    assert client.get("/next").text == "GET/next"


def test_what_follows_a_malformed_head_is_not_read(client: H3Client) -> None:
    number = client.ask_raw([*GOOD, ("x-a", "1\r\n2")], b"body", end=False)
    response = client.read(number)
    client.run(lambda: response.stopped is not None)
    assert (response.status, response.stopped) == (400, MESSAGE_ERROR)


def test_who_sends_malformed_heads_only_is_cut_off(quic) -> None:
    gateway = quic(SITE, "http3_max_resets 8;")
    with H3Client(gateway.port) as other, H3Client(gateway.port) as client:
        for _ in range(20):
            client.ask_raw([METHOD, SCHEME, AUTHORITY])
        assert client.wait_closed().error_code == EXCESSIVE_LOAD
        assert other.get("/next").text == "GET/next"


def test_large_client_header_buffers_bound_what_a_head_says(quic) -> None:
    gateway = quic(SITE, "large_client_header_buffers 2 200;")
    with H3Client(gateway.port) as client:
        said = sum(len(name) + len(value) for name, value in GOOD)
        rest = 400 - said - 2 * len("x-a") - 150
        sizes = {"each": (200, 400 - said - 200 - 6), "a field": (201, 1), "all": (150, rest + 1)}
        found = {
            name: client.read(client.ask_raw([*GOOD, *[("x-a", "v" * n) for n in them]])).status
            for name, them in sizes.items()
        }
        assert found == {"each": 200, "a field": 400, "all": 400}


def test_a_request_that_is_taken_back_before_its_head_is_over(quic) -> None:
    gateway = quic(SITE, "http3_max_concurrent_streams 4;")
    with H3Client(gateway.port) as client:
        for begun in (b"", b"\x01", b"\x01\x20ab") * 6:      # many more than may be at once
            number = client.quic.get_next_available_stream_id()
            client.raw(number, begun)
            client.quic.reset_stream(number, 0x10C)
            client.flush()
            assert client.read(number).code == 0x10D         # H3_REQUEST_INCOMPLETE
        assert client.get("/next").text == "GET/next"


@pytest.mark.parametrize(("length", "body"), [("5", b"123"), ("3", b"12345")])
def test_a_body_that_is_not_as_long_as_was_said(quic, upstream, length: str, body: bytes) -> None:
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}")
    with H3Client(gateway.port) as client:
        number = client.ask_raw([(":method", "POST"), *GOOD[1:], ("content-length", length)], body)
        response = client.read(number)
        assert (response.status, response.code) == (400, None)
        assert client.get("/next").text == "ok"
    assert [it.target for it in upstream.requests] == ["/next"]


def test_trailers_with_a_pseudo_field(quic, upstream) -> None:
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}")
    with H3Client(gateway.port) as client:
        number = client.ask_raw([(":method", "POST"), *GOOD[1:]], b"abc", end=False)
        client.http.send_headers(number, [(b":path", b"/x")], end_stream=True)
        client.flush()
        assert client.read(number).status == 400
        assert client.get("/next").text == "ok"


def test_trailers_of_a_request_are_dropped(quic, upstream: Recorder) -> None:
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}")
    with H3Client(gateway.port) as client:
        number = client.ask("/", method="POST", body=b"abc", end=False)
        client.http.send_headers(number, [(b"x-t", b"1")], end_stream=True)
        client.flush()
        assert client.read(number).status == 200
    assert upstream.last.body == b"abc"
    assert upstream.last.get("x-t") is None


def frame(kind: int, data: bytes = b"", size: int | None = None) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(data) if size is None else size) + data


# bytes on a request's stream → how the connection ends
BREACHES = {
    "DATA first": (frame(0, b"x"), FRAME_UNEXPECTED),
    "SETTINGS": (frame(4), FRAME_UNEXPECTED),
    "GOAWAY": (frame(7, b"\0"), FRAME_UNEXPECTED),
    "PUSH_PROMISE": (frame(5, b"\0"), FRAME_UNEXPECTED),
    "a frame of HTTP/2": (frame(2, bytes(5)), FRAME_UNEXPECTED),
    "no QPACK": (frame(1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), QPACK_FAILED),
    "an entry that is none": (frame(1, b"\0\0\xff\x80\x01"), QPACK_FAILED),
    "a huge head": (frame(1, b"\0\0", 1 << 30), EXCESSIVE_LOAD),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_the_connection(quic, name: str) -> None:
    data, code = BREACHES[name]
    gateway = quic(SITE)
    with H3Client(gateway.port) as other, H3Client(gateway.port) as client:
        client.raw(0, data, end=True)
        assert client.wait_closed().error_code == code
        assert other.get("/next").text == "GET/next"


CONTROL = {
    "settings too long": (b"\0" + frame(4, b"", 1 << 20), EXCESSIVE_LOAD),
    "no settings first": (b"\0" + frame(7, b"\0"), 0x10A),
    "a setting of HTTP/2": (b"\0" + frame(4, b"\2\0"), SETTINGS_ERROR),
    "a push stream": (b"\1\0", STREAM_CREATION),
}


@pytest.mark.parametrize("name", CONTROL)
def test_a_breach_on_a_control_stream(quic, name: str) -> None:
    data, code = CONTROL[name]
    gateway = quic(SITE)
    with H3Client(gateway.port, connect=False) as client:
        client.make_messages = lambda: None                  # no control stream of its own
        client.connect()
        client.raw(2, data)
        assert client.wait_closed().error_code == code


def test_a_head_in_pieces_of_one_byte(quic) -> None:
    gateway = quic(SITE)
    with H3Client(gateway.port) as client:
        _, block = client.http._encoder.encode(0, [(k.encode(), v.encode()) for k, v in GOOD])
        for byte in frame(0x21, b"unknown") + frame(1, block):
            client.raw(0, bytes([byte]))
        client.raw(0, b"", end=True)
        response = client.responses[0]
        client.run(lambda: response.is_whole or client.ended)
        assert response.text == "GET/"


def test_a_head_that_would_grow_a_thousandfold_is_not_read(quic) -> None:
    gateway = quic(SITE)
    with H3Client(gateway.port) as other, H3Client(gateway.port) as client:
        table = b"\x3f\xe1\x1f"                             # of 4096 bytes
        entry = b"\x43x-a" + b"\x7f\xbd\x1d" + b"v" * 3900
        client.quic.send_stream_data(client.http._local_encoder_stream_id, table + entry)
        client.raw(0, frame(1, b"\x02\0" + b"\x80" * 10_000), end=True)
        assert client.wait_closed().error_code == EXCESSIVE_LOAD
        assert other.get("/next").text == "GET/next"
