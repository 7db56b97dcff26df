"""A client's connection: kept, pipelined, half-closed, refused, timed out."""

from __future__ import annotations

import pytest
from recorder import answer

ECHO = """
    client_header_timeout 500ms;
    client_body_timeout 500ms;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { return 200 "$request_method $uri $args\\n"; }
        location /pass { client_max_body_size 10; proxy_pass http://%%UP%%; }
        location /stream {
            client_max_body_size 0; proxy_request_buffering off; proxy_pass http://%%UP%%;
        }
    }
"""


@pytest.fixture
def gateway(headrace, upstream):
    return headrace(ECHO.replace("%%UP%%", upstream.address))


def test_one_connection_carries_many_requests(gateway):
    with gateway.client() as client:
        for number in range(5):
            assert client.get(f"/{number}?a").text == f"GET /{number} a\n"


def test_pipelined_requests_are_answered_in_order(gateway):
    asked = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(20))
    with gateway.client() as client:
        client.send(asked)
        assert [client.read().text for _ in range(20)] == [f"GET /{n} \n" for n in range(20)]


def test_pipelined_behind_a_proxied_one(gateway, upstream):
    upstream.answer = lambda request: answer(request.target.encode())
    asked = b"".join(b"GET /pass/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(10))
    with gateway.client() as client:
        client.send(asked)
        assert [client.read().text for _ in range(10)] == [f"/pass/{n}" for n in range(10)]


def test_every_split_of_a_request(gateway):
    data = b"POST /a%20b?c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX: y\r\n\r\nabc"
    with gateway.client() as client:
        for at in range(1, len(data)):
            client.send_split(data, at, pause_s=0.001)
            assert client.read().text == "POST /a b c\n", at


def test_half_close_after_the_request_is_still_answered(gateway):
    assert b"GET /x" in gateway.raw("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")


def test_http_10_closes_and_keeps_when_asked(gateway):
    with gateway.client() as client:
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.read().status == 200
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.read().status == 200
        assert client.is_closed()


def test_head_has_no_body(gateway):
    with gateway.client() as client:
        answered = client.ask("HEAD", "/x")
        assert answered.get("content-length") == str(len("HEAD /x \n"))
        assert client.get("/y").text == "GET /y \n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
         "Transfer-Encoding: chunked\r\n\r\n", 400),
        ("POST /pass HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: " + "b" * 9000 + "\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("POST /pass HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413),
        ("POST /pass HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "b\r\nhello world\r\n0\r\n\r\n", 413),
    ],
)
def test_what_cannot_be_understood_is_refused_and_closed(gateway, upstream, data, status):
    with gateway.client() as client:
        client.send(data)
        assert client.read().status == status
        assert client.is_closed()
    assert not upstream.requests


def test_a_dribbled_head_is_cut_by_its_timeout(gateway):
    with gateway.client() as client:
        client.send("GET / HT")
        assert client.is_closed(20)


def test_a_silent_body_is_408(gateway):
    with gateway.client() as client:
        client.send("POST /pass HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        assert client.read().status == 408
        assert client.is_closed()


def test_expect_is_answered_when_the_body_is_wanted(gateway, upstream):
    with gateway.client() as client:
        client.send("POST /pass HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                    "Expect: 100-continue\r\n\r\n")
        assert client.read(skip_interim=False).status == 100
        client.send("ab")
        assert client.read().status == 200
    assert upstream.last.body == b"ab"
    assert upstream.last.get("expect") is None


def test_an_unread_body_does_not_become_a_request(gateway):
    with gateway.client() as client:
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\n"
            "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert client.read("POST").text == "POST / \n"
        assert client.read().text == "GET /next \n"
