"""Many slow or silent clients at once beside a healthy one: each is cut by its own time limit.

HEADRACE_HOSTILE gives the number of connections of each kind (200).
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from recorder import answer

COUNT = int(os.environ.get("HEADRACE_HOSTILE", "200"))
LIMIT_S = 2                       # every time limit of the conf
CUT_WITHIN_S = 9.0                # the limit, a second one while closing, and a busy machine
OWN = 4                           # sockets that the worker opens for itself meanwhile
KIB_EACH = 64                     # memory that a connection may cost; an answer waits in a file
BIG = b"b" * (2 << 20)

CONF = """
    client_header_timeout 2s;
    client_body_timeout 2s;
    keepalive_timeout 2s;
    send_timeout 2s;
    lingering_timeout 1s;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:%%PORT%%;
        location = /ok { return 200 fine; }
        location / { proxy_pass http://%%UP%%; }
        location /streamed {
            proxy_request_buffering off; proxy_buffering off; proxy_pass http://%%UP%%;
        }
    }
"""

HALF = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"

# name, what is sent at first, what is sent again and again, bytes read at a time (0: never)
KINDS: list[tuple[str, bytes, bytes, int]] = [
    ("says nothing", b"", b"", 65536),
    ("half a line", b"GET / HT", b"", 65536),
    ("a head line at a time", HALF, b"X-A: b\r\n", 65536),
    ("a byte of a head at a time", b"G", b"E", 65536),
    ("a second head, dripping", GET % b"ok", b"G", 65536),
    ("a silent body", POST % b"", b"", 65536),
    ("a silent streamed body", POST % b"streamed", b"", 65536),
    ("never reads", GET % b"streamed", b"", 0),
    ("never reads a buffered answer", GET % b"", b"", 0),
    ("idle after an answer", GET % b"ok", b"", 65536),
]


def rss_kib(gateway) -> int:
    total = 0
    for pid in gateway.workers():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def accepted(gateway) -> int:
    """Sockets that the workers hold."""
    found = 0
    for pid in gateway.workers():
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
            except OSError:
                continue
    return found


def until(test: Callable[[], bool], limit_s: float, every: Callable[[], None]) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if test():
            return True
        every()
        time.sleep(0.1)
    return test()


@pytest.mark.parametrize(("name", "first", "again", "reads"), KINDS, ids=[it[0] for it in KINDS])
def test_slow_clients_are_cut_and_cost_little(headrace, upstreams, name, first, again, reads):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    upstream = upstreams(answer(BIG))
    gateway = headrace(
        CONF.replace("%%UP%%", upstream.address),
        main=f"worker_rlimit_nofile {4 * COUNT + 1024};\n"
             f"events {{ worker_connections {4 * COUNT + 512}; }}",
    )
    assert gateway.get("/ok").text == "fine"
    before_kib, before = rss_kib(gateway), accepted(gateway)
    clients: list[socket.socket] = []
    for _ in range(COUNT):
        sock = socket.socket()
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        if first:
            sock.sendall(first)
        sock.setblocking(False)
        clients.append(sock)
    most_kib = 0

    def live_on() -> None:
        nonlocal most_kib
        most_kib = max(most_kib, rss_kib(gateway))
        assert gateway.get("/ok").text == "fine"
        for sock in clients:
            with contextlib.suppress(OSError):
                if reads:
                    sock.recv(reads)
            with contextlib.suppress(OSError):
                if again:
                    sock.send(again)

    begun = time.monotonic()
    try:
        is_cut = until(lambda: accepted(gateway) <= before + OWN, CUT_WITHIN_S, live_on)
        assert is_cut, f"{accepted(gateway) - before} of {COUNT} still here"
        if name != "idle after an answer":
            assert time.monotonic() - begun > 0.5, "nobody is cut before the limit"
        assert most_kib - before_kib < 8192 + COUNT * KIB_EACH, f"{most_kib - before_kib} KiB"
        assert gateway.get("/ok").text == "fine"
    finally:
        for sock in clients:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_dripping_reader_beside_a_healthy_one_holds_nobody(headrace, upstreams):
    upstream = upstreams(answer(BIG))
    gateway = headrace(CONF.replace("%%UP%%", upstream.address))
    before_kib = rss_kib(gateway)
    clients = []
    for _ in range(COUNT // 4):
        sock = socket.create_connection(("127.0.0.1", gateway.port))
        sock.sendall(GET % b"")
        sock.setblocking(False)
        clients.append(sock)
    with gateway.client() as healthy:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for sock in clients:
                with contextlib.suppress(OSError):
                    sock.recv(1024)
            assert healthy.get("/ok").text == "fine"
            time.sleep(0.05)
    assert rss_kib(gateway) - before_kib < 16384 + len(clients) * 512
    for sock in clients:
        sock.close()
    assert gateway.get("/ok").text == "fine"
