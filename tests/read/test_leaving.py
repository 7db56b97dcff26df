"""How a client's connection ends: read on for a while, cut when nothing moves, reset if so told."""

from __future__ import annotations

import os
import socket
import time

import pytest
from gateway import wait_for
from recorder import answer

BIG = b"b" * (6 << 20)
CONF = """
    {more}
    server {
        listen 127.0.0.1:%%PORT%%;
        client_max_body_size 0;
        location / { return 200 fine; }
        location /deny { return 403; }
        location /none { return 444; }
        location /up { proxy_pass http://%%UP%%; proxy_buffering off; }
        location /body { proxy_pass http://%%UP%%; }
    }
"""


def conf(upstream, more: str) -> str:
    return CONF.replace("{more}", more).replace("%%UP%%", upstream.address)


def has_reset(sock: socket.socket, limit_s: float = 5.0) -> bool:
    """Did the connection end with RST? Reads until it ends."""
    sock.settimeout(limit_s)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def sockets(gateway) -> int:
    """How many descriptors the workers hold."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in gateway.workers())


def slow_reader(gateway, target: str = "/up") -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", gateway.port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return sock


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_body_that_nobody_wants_is_read_as_long_as_it_comes(headrace, upstream, close):
    """lingering_timeout is for silence: pieces that come more often keep the connection."""
    gateway = headrace(conf(upstream, "lingering_timeout 1s; lingering_time 30s;"))
    with gateway.client() as client:
        client.send(b"POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n" + close + b"\r\n")
        assert client.read("POST").status == 403
        for _ in range(6):
            time.sleep(0.4)
            client.send(b"x")
        if not close:
            assert client.send(b"x").get("/").text == "fine"


def test_lingering_time_bounds_it_all(headrace, upstream):
    gateway = headrace(conf(upstream, "lingering_timeout 2s; lingering_time 1s;"))
    with gateway.client() as client:
        client.send(b"POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
        assert client.read("POST").status == 403
        with pytest.raises(OSError):
            for _ in range(60):
                client.send(b"x")
                time.sleep(0.1)


def test_a_slow_reader_that_takes_something_is_not_cut(headrace, upstreams):
    """send_timeout is for taking nothing, though one write may wait for longer than that."""
    upstream = upstreams(answer(BIG))
    gateway = headrace(conf(upstream, "send_timeout 1s;"))
    sock = slow_reader(gateway)
    sock.settimeout(5)
    begun, got = time.monotonic(), 0
    while time.monotonic() < begun + 4:
        got += len(sock.recv(128 << 10))
        time.sleep(0.02)
    while got < len(BIG):
        piece = sock.recv(1 << 18)
        assert piece, f"cut after {got} bytes"
        got += len(piece)
    sock.close()


@pytest.mark.parametrize("is_on", [True, False])
def test_reset_timedout_connection(headrace, upstreams, is_on):
    """Who takes nothing is reset where the conf says so; else it still gets what was on its way."""
    upstream = upstreams(answer(BIG))
    more = f"send_timeout 1s; reset_timedout_connection {'on' if is_on else 'off'};"
    gateway = headrace(conf(upstream, more))
    gateway.get("/")
    before = sockets(gateway)
    sock = slow_reader(gateway)
    wait_for(lambda: sockets(gateway) > before, what="it came")
    wait_for(lambda: sockets(gateway) <= before, 8, "it is cut")
    assert has_reset(sock) is is_on
    sock.close()


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize(
    "said",
    [b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nX-A",
     b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"],
    ids=["444", "half a head", "a silent body"],
)  # fmt: skip
def test_what_else_is_reset(headrace, upstream, said, is_on):
    flag = "on" if is_on else "off"
    gateway = headrace(conf(
        upstream,
        "client_header_timeout 500ms; client_body_timeout 500ms; "
        f"reset_timedout_connection {flag};",
    ))
    with gateway.client() as client:
        client.send(said)
        assert has_reset(client.sock) is is_on


def test_an_idle_connection_that_times_out_is_not_reset(headrace, upstream):
    gateway = headrace(conf(upstream, "keepalive_timeout 500ms; reset_timedout_connection on;"))
    with gateway.client() as client:
        assert client.get("/").text == "fine"
        assert not has_reset(client.sock)


def test_a_bad_chunk_that_is_here_already_is_refused_though_nobody_wants_the_body(
    headrace, upstream
):
    gateway = headrace(conf(upstream, ""))
    head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert gateway.raw(head + b"4\r\nSEE-THIS\r\n0\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    with gateway.client() as client:
        for _ in range(3):
            client.send(head + b"4\r\nSEEN\r\n0\r\n\r\n")
            assert client.read().text == "fine"
