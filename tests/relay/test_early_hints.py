"""early_hints: 103 of an upstream reaches clients that may have it, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import socket

import pytest
from gateway import Gateway
from h2client import H2Client
from recorder import Recorder, answer

HINTS = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Accel-Expires: 1\r\n"
    b"Connection: close\r\nContent-Length: 5\r\nX-Own: yes\r\n\r\n"
)
HTTP = """
    server {
        listen %%PORT%%;
        http2 on;
        early_hints $arg_hints $http_sec_fetch_mode;
        location / { proxy_pass http://ADDRESS; proxy_hide_header X-Own; }
        location /off { early_hints 0; proxy_pass http://ADDRESS; }
        location /inherited { proxy_pass http://ADDRESS; }
    }
"""


def raw(gateway: Gateway, target: str, version: str = "1.1") -> bytes:
    """All that comes for one request."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as sock:
        head = f"GET {target} HTTP/{version}\r\nHost: h\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


@pytest.fixture
def gateway(headrace, upstreams) -> Gateway:
    return headrace(HTTP.replace("ADDRESS", upstreams(HINTS * 2 + answer(b"body")).address))


def test_hints_go_before_the_answer(gateway: Gateway) -> None:
    data = raw(gateway, "/?hints=1")
    first, second, head, body = data.split(b"\r\n\r\n")
    assert first == second == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"body"


@pytest.mark.parametrize("target", ["/", "/?hints=0", "/?hints=", "/off?hints=1"])
def test_none_go_where_they_are_not_wanted(gateway: Gateway, target: str) -> None:
    assert raw(gateway, target).startswith(b"HTTP/1.1 200 ")


def test_http_1_0_has_no_interim_answers(gateway: Gateway) -> None:
    assert raw(gateway, "/?hints=1", "1.0").startswith(b"HTTP/1.1 200 ")


def test_hints_over_http_2(gateway: Gateway) -> None:
    with H2Client(gateway.port) as client:
        response = client.get("/?hints=1")
        assert response.interim == [103, 103]
        assert (response.status, response.body) == (200, b"body")
        assert client.get("/").interim == []
        own = client.get("/inherited?hints=yes")
        assert own.interim == [103, 103]


def test_what_may_not_pass_is_not_in_hints_over_http_2(gateway: Gateway) -> None:
    with H2Client(gateway.port) as client:
        client.get("/?hints=1")
        names = {name for name, _ in client.responses[1].hints[0]}
        assert names == {":status", "link"}
        client.get("/inherited?hints=1")
        assert {name for name, _ in client.responses[3].hints[0]} == {":status", "link", "x-own"}


def test_hints_are_bounded(headrace, upstreams) -> None:
    """Together they have as many bytes as one head may have; what is behind is dropped."""
    one = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 900 + b"\r\n\r\n"
    gateway = headrace(HTTP.replace("ADDRESS", upstreams(one * 10 + answer(b"body")).address))
    data = raw(gateway, "/?hints=1")
    assert data.count(b"103 Early Hints") == 4
    assert data.endswith(b"\r\n\r\nbody")


def test_nothing_but_hints_is_no_answer(headrace, upstreams) -> None:
    gateway = headrace(HTTP.replace("ADDRESS", upstreams(HINTS * 40).address))
    data = raw(gateway, "/?hints=1")
    assert data.count(b"HTTP/1.1 502 ") == 1
    with H2Client(gateway.port) as client:
        assert client.get("/?hints=1").status == 502


def test_hints_without_fields_are_dropped(headrace, upstream: Recorder, upstreams) -> None:
    empty = b"HTTP/1.1 103 Early Hints\r\nX-Own: 1\r\n\r\n"
    gateway = headrace(HTTP.replace("ADDRESS", upstreams(empty + answer(b"body")).address))
    assert raw(gateway, "/?hints=1").startswith(b"HTTP/1.1 200 ")
    with H2Client(gateway.port) as client:
        response = client.get("/?hints=1")
        assert (response.interim, response.status) == ([], 200)
