"""An answer given before the request's body was read: RFC 9112 §9.3 lets the server read the rest
or close, and nothing of a body may ever be taken for a request."""

from __future__ import annotations

import socket
import time

import pytest
from recorder import answer

CONF = """
    log_format asked '$request_method $uri $status';
    access_log %%DIR%%/logs/access.log asked;
    lingering_timeout 2s;
    server {
        listen 127.0.0.1:%%PORT%%;
        root %%DIR%%;
        client_max_body_size 1k;
        location = /next { return 200 next; }
        location = /200 { return 200 early; }
        location = /301 { return 301 /next; }
        location = /400 { return 400; }
        location = /403 { deny all; proxy_pass http://%%UP%%; }
        location = /405 { limit_except GET { deny all; } proxy_pass http://%%UP%%; }
        location = /413 { client_max_body_size 4; proxy_pass http://%%UP%%; }
        location = /500 { return 500; }
        location = /501 { return 501; }
        location = /502 { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; }
        location = /503 { return 503; }
        location = /early { proxy_pass http://%%UP%%; proxy_request_buffering off; }
    }
"""
# a body that reads as a request, and as chunks of one
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" * 8

# target, status, may the connection stay? nginx closes after these: 400, 413, 414, 500, 501
EARLY = [
    ("/200", 200, True),
    ("/301", 301, True),
    ("/400", 400, False),
    ("/403", 403, True),
    ("/none", 404, True),
    ("/413", 413, False),
    ("/500", 500, False),
    ("/501", 501, False),
    ("/502", 502, True),
    ("/503", 503, True),
    ("/early", 200, True),
]
FRAMINGS = ["length", "chunked"]
SENT = [0, 1, 40, len(SMUGGLED)]  # bytes of the body that come with the head


def framed(framing: str, target: str) -> tuple[bytes, bytes]:
    """Head and body as they go over the wire."""
    head = b"POST %s HTTP/1.1\r\nHost: a\r\n" % target.encode()
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED), SMUGGLED
    pieces = [SMUGGLED[i : i + 30] for i in range(0, len(SMUGGLED), 30)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(it), it) for it in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n", body + b"0\r\n\r\n"


@pytest.fixture
def gateway(headrace, upstream):
    # answers at once, whatever comes of the body
    upstream.answer = answer(b"early")
    return headrace(CONF.replace("%%UP%%", upstream.address))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("target", "status", "stays"), EARLY, ids=[it[0][1:] for it in EARLY])
def test_the_rest_of_a_body_is_dropped_or_the_connection_closed(
    gateway, target, status, stays, framing
):
    head, body = framed(framing, target)
    for sent in SENT:
        if (target, framing) == ("/413", "chunked") and sent < 40:
            continue                             # too large only once it came
        with gateway.client() as client:
            client.send(head + body[:sent])
            if target == "/early" and sent < len(body):
                client.send(body[sent:])         # it answers when it has all of it
            got = client.read("POST")
            assert got.status == status
            is_kept = (got.get("connection") or "keep-alive").lower() != "close"
            if sent < len(body) and target != "/early":
                assert is_kept == stays
                # other requests use the memory of the one that is over
                for _ in range(3):
                    assert gateway.get("/next?" + "x" * 300).text == "next"
                try:
                    for at in range(sent, len(body), 50):
                        client.send(body[at : at + 50])
                        time.sleep(0.002)
                except OSError:
                    assert not stays
                    continue
            if is_kept:
                assert client.get("/next").text == "next"
            else:
                assert client.is_closed()
    assert not [line for line in gateway.log() if "smuggled" in line]


def test_a_bad_chunk_in_the_rest_ends_the_connection(gateway):
    with gateway.client() as client:
        client.send("POST /200 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "3\r\nabc\r\n")
        assert client.read("POST").status == 200
        client.send("zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.is_closed()
    assert not [line for line in gateway.log() if "smuggled" in line]


def test_a_rest_that_comes_slowly_is_waited_for(gateway):
    """lingering_timeout is from one read to the next."""
    with gateway.client() as client:
        client.send("POST /200 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        assert client.read("POST").status == 200
        for byte in "abcdef":
            time.sleep(0.6)
            client.send(byte)
        assert client.get("/next").text == "next"


def test_a_rest_that_does_not_come_is_not_waited_for(gateway):
    with gateway.client() as client:
        client.send("POST /200 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
        assert client.read("POST").status == 200
        assert client.is_closed(10)


def test_the_answer_of_who_is_closed_upon_is_not_lost(gateway):
    """A close with bytes unread would reset it away (RFC 9112 §9.6)."""
    for _ in range(20):
        with gateway.client() as client:
            head, body = framed("length", "/413")
            client.send(head + body)
            client.sock.shutdown(socket.SHUT_WR)
            assert client.read("POST").status == 413
