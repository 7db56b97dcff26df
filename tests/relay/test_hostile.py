"""Thousands of slow or silent clients at once beside healthy ones: each is cut by its own time
limit, costs little, and leaves nothing behind; the healthy ones are all answered.

HEADRACE_HOSTILE gives the number of connections of each large crowd (2000).
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rawclient import RawClient
from recorder import answer

MANY = int(os.environ.get("HEADRACE_HOSTILE", "2000"))
SOME = 200
CUT_WITHIN_S = 30.0               # a guard against hanging, not a measure
KIB_EACH = 48                     # memory that a connection may cost; an answer waits in a file
KIB_ALL = 4096                    # what a worker takes with its first thousands, whoever they are
BIG_BYTES = 384 << 10              # more than the sockets of one client take
KEPT = 32                         # `keepalive` of an upstream: idle connections that may stay
HEALTHY = 4

# sndbuf: what the kernel holds for 2000 who never read must fit in its memory for TCP
CONF = """
    client_header_timeout 2s;
    client_body_timeout 2s;
    keepalive_timeout 2s;
    send_timeout 2s;
    lingering_timeout 1s;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:%%PORT%% sndbuf=16k backlog=4096;
        location = /ok { return 200 fine; }
        location / { proxy_pass http://%%UP%%; }
        location /streamed {
            proxy_request_buffering off; proxy_buffering off; proxy_pass http://%%UP%%;
        }
    }
"""

HALF = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"
CHUNKS = b"POST /%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF_BODY = b"GET /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Kind(NamedTuple):
    """A crowd: what each sends at first, then again and again (times, 0: as long as it is let)."""

    name: str
    count: int
    first: bytes
    again: bytes = b""
    times: int = 0
    has_ears: bool = True
    leaves: bool = False          # sends its FIN


KINDS = [
    Kind("a byte of a head at a time", MANY, b"G", b"E"),
    Kind("a byte of a body at a time", MANY, POST % b"", b"d", times=10),
    Kind("a byte of a streamed body at a time", MANY, POST % b"streamed", b"d", times=10),
    Kind("never reads", MANY, GET % b"streamed", has_ears=False),
    Kind("never reads a buffered answer", MANY, GET % b"", has_ears=False),
    Kind("leaves half a body and never reads", SOME, HALF_BODY, has_ears=False, leaves=True),
    Kind("says nothing", SOME, b""),
    Kind("half a line", SOME, b"GET / HT"),
    Kind("a head line at a time", SOME, HALF, b"X-A: b\r\n"),
    Kind("a second head, dripping", SOME, GET % b"ok", b"G"),
    Kind("a chunk at a time", SOME, CHUNKS % b"", b"1\r\nd\r\n", times=10),
    Kind("a streamed chunk at a time", SOME, CHUNKS % b"streamed", b"1\r\nd\r\n", times=10),
    Kind("a silent body", SOME, POST % b""),
    Kind("a silent streamed body", SOME, POST % b"streamed"),
    Kind("idle after an answer", SOME, GET % b"ok"),
]


@pytest.fixture
def files() -> Iterator[int]:
    """As many open files as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def flood(files) -> Iterator[int]:
    """The port of an upstream that can feed thousands."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "flood.py"), str(BIG_BYTES)],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def rss_kib(gateway) -> int:
    total = 0
    for pid in gateway.workers():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def ports_of_sockets() -> dict[str, tuple[int, int]]:
    """inode → (own port, the other side's port) of every TCP socket."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        found[words[9]] = int(words[1].split(":")[1], 16), int(words[2].split(":")[1], 16)
    return found


def held(gateway, upstream_port: int) -> tuple[int, int, int]:
    """Descriptors of the workers: (of clients, towards the upstream, pipes)."""
    links: Counter[str] = Counter()
    for pid in gateway.workers():
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links[os.readlink(f"/proc/{pid}/fd/{name}")] += 1
    ports = ports_of_sockets()
    clients = upstreams = 0
    for link, count in links.items():
        if link.startswith("socket:["):
            own, other = ports.get(link[8:-1], (0, 0))
            clients += count if own == gateway.port and other else 0
            upstreams += count if other == upstream_port else 0
    return clients, upstreams, sum(n for link, n in links.items() if link.startswith("pipe:["))


class Healthy(threading.Thread):
    """Asks and is answered, again and again, until stopped."""

    def __init__(self, port: int, target: str) -> None:
        super().__init__(daemon=True)
        self.port, self.target = port, target
        self.is_over = threading.Event()
        self.answered = 0
        self.failed: list[object] = []

    def run(self) -> None:
        while not self.is_over.is_set():
            try:
                with RawClient(self.port, timeout_s=CUT_WITHIN_S) as client:
                    for _ in range(20):
                        status = client.get(self.target).status
                        self.answered += 1
                        if status != 200:
                            self.failed.append(status)
                        if self.is_over.wait(0.02):
                            break
            except Exception as error:
                self.failed.append(error)


def until(test: Callable[[], bool], limit_s: float, every: Callable[[], None]) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if test():
            return True
        every()
        time.sleep(0.1)
    return test()


@pytest.mark.parametrize("kind", KINDS, ids=[it.name for it in KINDS])
def test_slow_clients_are_cut_and_cost_little(headrace, files, flood, kind):
    count = min(kind.count, (files - 1024) // 5)
    gateway = headrace(
        CONF.replace("%%UP%%", f"127.0.0.1:{flood}"),
        main=f"worker_rlimit_nofile {min(files, 5 * count + 1024)};\n"
             f"events {{ worker_connections {3 * count + 512}; }}",
    )
    assert gateway.get("/ok").text == "fine"
    assert gateway.get("/small").text == "ok"
    healthy = [Healthy(gateway.port, "/ok" if n % 2 else "/small") for n in range(HEALTHY)]
    before_kib = most_kib = rss_kib(gateway)
    pipes = held(gateway, flood)[2]
    clients: list[socket.socket] = []
    for it in healthy:
        it.start()
    try:
        for _ in range(count):
            sock = socket.socket()
            if not kind.has_ears:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", gateway.port))
            sock.sendall(kind.first)
            sock.setblocking(False)
            clients.append(sock)
        most = 0
        left = [kind.times or 1 << 30]

        def live_on() -> None:
            nonlocal most, most_kib
            most = max(most, held(gateway, flood)[0])
            most_kib = max(most_kib, rss_kib(gateway))
            left[0] -= 1
            for sock in clients:
                with contextlib.suppress(OSError):
                    if kind.has_ears:
                        sock.recv(65536)
                with contextlib.suppress(OSError):
                    if kind.again and left[0] >= 0:
                        sock.send(kind.again)

        live_on()
        if kind.leaves:
            time.sleep(0.5)                      # the answer waits for them by then
            for sock in clients:
                sock.shutdown(socket.SHUT_WR)
        is_cut = until(lambda: held(gateway, flood)[0] <= HEALTHY, CUT_WITHIN_S, live_on)
        assert is_cut, f"{held(gateway, flood)[0]} of {count} still here"
        print(f"{most} of {count} at once, {most_kib - before_kib} KiB,",
              f"{sum(it.answered for it in healthy)} healthy answers")
    finally:
        for it in healthy:
            it.is_over.set()
        for it in healthy:
            it.join()
        for sock in clients:
            sock.close()
    assert [it.failed for it in healthy] == [[]] * HEALTHY
    assert all(it.answered for it in healthy)
    cost = most_kib - before_kib
    assert cost < KIB_ALL + count * KIB_EACH, f"{cost} KiB"
    last = (0, 0, 0)

    def is_clean() -> bool:
        nonlocal last
        last = held(gateway, flood)
        return last[0] == 0 and last[1] <= KEPT and last[2] <= pipes + 64

    assert until(is_clean, CUT_WITHIN_S, lambda: None), last


def test_a_dripping_reader_beside_a_healthy_one_holds_nobody(headrace, upstreams):
    upstream = upstreams(answer(b"b" * (2 << 20)))
    gateway = headrace(CONF.replace("%%UP%%", upstream.address))
    before_kib = rss_kib(gateway)
    clients = []
    for _ in range(50):
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
