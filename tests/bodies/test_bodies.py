"""Bodies both ways: whole, in any framing, past every buffer, with back-pressure."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
from recorder import answer

CONF = """
    client_max_body_size 0;
    upstream up { server %%UP%%; keepalive 8; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location /buffered { proxy_pass http://up; }
        location /streamed {
            proxy_buffering off; proxy_request_buffering off; proxy_pass http://up;
        }
        location /nofile { proxy_max_temp_file_size 0; proxy_pass http://up; }
    }
"""
BIG = bytes(range(256)) * 16384  # 4 MiB
WAYS = ["/buffered", "/streamed", "/nofile"]


@pytest.fixture
def gateway(headrace, upstream):
    return headrace(CONF.replace("%%UP%%", upstream.address))


def chunked(body: bytes, size: int = 7000) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(it), it) for it in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 1, 1000, 16384, 70_000, 4 << 20])
def test_a_body_goes_up_whole(gateway, upstream, way, size):
    with gateway.client() as client:
        for _ in range(2):
            assert client.ask("POST", way, BIG[:size]).status == 200
    assert [len(it.body) for it in upstream.requests] == [size, size]
    assert upstream.last.body == BIG[:size]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 70_000, 1 << 20])
def test_a_chunked_body_goes_up_whole(gateway, upstream, way, size):
    with gateway.client() as client:
        client.send(
            b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % way.encode()
            + chunked(BIG[:size])
        )
        assert client.read().status == 200
    assert upstream.last.body == BIG[:size]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 1, 5000, 70_000, 4 << 20])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_comes_down_whole(gateway, upstream, way, size, framing):
    from recorder import Close

    body = BIG[:size]
    if framing == "length":
        upstream.answer = answer(body)
    elif framing == "chunked":
        upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body)
    else:
        upstream.answer = Close(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    with gateway.client() as client:
        for _ in range(2):
            answered = client.get(way)
            assert answered.is_whole
            assert hashlib.sha256(answered.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_reader_gets_all_of_it(gateway, upstream, way):
    upstream.answer = answer(BIG * 4)
    with gateway.client(timeout_s=30) as client:
        client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % way.encode())
        time.sleep(0.6)
        answered = client.read()
    assert answered.is_whole
    assert answered.body == BIG * 4


def test_a_slow_reader_does_not_hold_a_buffered_upstream(gateway, upstream):
    """nginx's promise of proxy_buffering: the upstream is free while the client dawdles."""
    done = threading.Event()

    def tell(_request):
        yield answer(BIG * 4)
        done.set()

    upstream.answer = tell
    with gateway.client() as client:
        client.send("GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n")
        assert done.wait(10)
        assert client.read().body == BIG * 4


def test_an_answer_may_come_before_the_body_is_sent(gateway, upstream, upstreams):
    upstream.answer = answer(b"no", status=413)
    with gateway.client() as client:
        client.send("POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        client.send("defghij")
        assert client.read().status == 413


def test_pieces_leave_as_they_come(gateway, upstream):
    go = threading.Event()

    def tell(_request):
        yield (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               b"Transfer-Encoding: chunked\r\n\r\n")
        yield b"5\r\nfirst\r\n"
        go.wait(5)
        yield b"4\r\nlast\r\n0\r\n\r\n"

    upstream.answer = tell
    for way in WAYS:
        go.clear()
        with gateway.client() as client:
            client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % way.encode())
            data = b""
            while b"first" not in data:
                data += client.sock.recv(4096)
            assert b"last" not in data
            go.set()
            while b"0\r\n\r\n" not in data:
                data += client.sock.recv(4096)
