"""A streamed body is held while it fits its buffer: $request_body reads it, a retry sends it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

CONF = """
    upstream up { server 127.0.0.1:BAD; server 127.0.0.1:BAD; server %%UP%% backup; }
    server {
        listen 127.0.0.1:%%PORT%%;
        client_body_buffer_size 8k;
        proxy_request_buffering off;
        location / { add_header X-Body $request_body; proxy_pass http://%%UP%%; }
        location /retry { proxy_http_version 1.1; proxy_pass http://up; }
        location /whole { error_page 404 = /retry_whole; proxy_intercept_errors on;
                          proxy_pass http://%%UP%%; }
        location /retry_whole { proxy_request_buffering on; proxy_pass http://%%UP%%; }
    }
"""


class Quitter:
    """Takes a connection, reads until it saw `enough` bytes of body, and closes."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.asked = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self.listener.accept()[0]
                self.asked += 1
                data = b""
                while len(data.partition(b"\r\n\r\n")[2]) < self.enough:
                    got = sock.recv(65536)
                    if not got:
                        break
                    data += got
                sock.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def quitter():
    made = Quitter(10)
    yield made
    made.close()


@pytest.fixture
def gateway(headrace, upstream, quitter):
    conf = CONF.replace("%%UP%%", upstream.address)
    return headrace(conf.replace("127.0.0.1:BAD", f"127.0.0.1:{quitter.port}"))


def pieces_of(framing: str, body: bytes, count: int) -> list[bytes]:
    size = -(-len(body) // count)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    if framing == "chunked":
        return [b"%x\r\n%s\r\n" % (len(it), it) for it in pieces] + [b"0\r\n\r\n"]
    return pieces


def ask(gateway, path, framing, body, count=4):
    field = f"Content-Length: {len(body)}" if framing == "length" else "Transfer-Encoding: chunked"
    with gateway.client() as client:
        client.send(f"PUT {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")
        for piece in pieces_of(framing, body, count):
            client.send(piece)
            time.sleep(0.01)
        return client.read()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 1000, 5000])
def test_request_body_is_known_while_it_fits(gateway, upstream, framing, size):
    body = b"x" * size
    assert ask(gateway, "/", framing, body).get("X-Body") == body.decode()
    assert upstream.last.body == body


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_does_not_fit_is_passed_on_only(gateway, upstream, framing):
    body = b"0123456789" * 2000
    assert ask(gateway, "/", framing, body).get("X-Body") is None
    assert upstream.last.body == body


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("count", [1, 4, 30])
def test_a_peer_that_leaves_in_the_middle(gateway, upstream, quitter, framing, count):
    body = bytes(range(65, 91)) * 200
    assert ask(gateway, "/retry", framing, body, count).status == 200
    assert upstream.last.body == body
    assert quitter.asked


def test_a_body_that_is_not_held_is_not_sent_again(gateway, upstream):
    assert ask(gateway, "/retry", "length", b"x" * 20000).status == 502
    assert upstream.requests == []


def test_the_rest_is_read_whole_where_the_next_location_says_so(gateway, upstream):
    from recorder import OK, answer

    upstream.answer = [answer(b"no", 404), OK]
    assert ask(gateway, "/whole", "length", b"abcd" * 100).status == 200
    assert upstream.last.body == b"abcd" * 100
