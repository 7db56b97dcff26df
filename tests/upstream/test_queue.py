"""`queue` in an upstream: who finds every server at its max_conns waits for its turn."""

from __future__ import annotations

import threading
import time

import pytest
from gateway import Gateway, run, wait_for
from rawclient import Answered
from recorder import Recorded, answer

CONF = """
    upstream app { server %%UP%% max_conns=1; queue %%QUEUE%%; }
    upstream bare { server %%UP%% max_conns=1; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://app; }
        location /bare/ { proxy_pass http://bare/; }
    }
"""


class Slow:
    """What the upstream answers, "/slow" when `is_over`; how many it had at once, and in which
    order."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.now = self.most = 0
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, request: Recorded) -> bytes:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.asked.append(request.target)
        if "slow" in request.target:
            assert self.is_over.wait(30)
        else:
            time.sleep(0.02)
        with self.lock:
            self.now -= 1
        return answer(request.target.encode())


@pytest.fixture
def limited(headrace, upstreams):
    """A maker: (a gateway with that queue, its upstream)."""

    def make(queue: str, main: str = "") -> tuple[Gateway, Slow]:
        slow = Slow()
        conf = CONF.replace("%%UP%%", upstreams(slow).address).replace("%%QUEUE%%", queue)
        return headrace(conf, main), slow

    return make


def ask_all(
    gateway: Gateway, slow: Slow, targets: list[str], at_once: int = 0
) -> list[Answered]:
    """One after another is sent, the rest once the upstream has the first, which is answered when
    the last `at_once` have their answers."""
    clients = [gateway.client() for _ in targets]
    for client, target in zip(clients, targets, strict=True):
        client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: slow.asked)
        time.sleep(0.02)
    held = len(targets) - at_once
    last = [client.read() for client in clients[held:]]
    slow.is_over.set()
    found = [client.read() for client in clients[:held]] + last
    for client in clients:
        client.close()
    return found


def test_they_are_answered_one_at_a_time_in_their_order(limited) -> None:
    gateway, slow = limited("size=100")
    targets = ["/slow", *(f"/{n}" for n in range(30))]
    found = ask_all(gateway, slow, targets)
    assert [(it.status, it.text) for it in found] == [(200, it) for it in targets]
    assert slow.asked == targets
    assert slow.most == 1


def test_without_it_they_fail_at_once(limited) -> None:
    gateway, slow = limited("size=100")
    targets = ["/bare/slow", "/bare/1", "/bare/2"]
    statuses = [it.status for it in ask_all(gateway, slow, targets, at_once=2)]
    assert statuses == [200, 502, 502]


def test_who_is_over_size_is_refused(limited) -> None:
    gateway, slow = limited("size=2")
    targets = ["/slow", "/1", "/2", "/3", "/4"]
    statuses = [it.status for it in ask_all(gateway, slow, targets, at_once=2)]
    assert statuses == [200, 200, 200, 503, 503]
    assert 'queue is full in upstream "app"' in gateway.error_log


def test_who_is_over_bytes_is_refused(limited) -> None:
    gateway, slow = limited("bytes=1k")
    long = "/" + "x" * 600
    statuses = [it.status for it in ask_all(gateway, slow, ["/slow", long, long], at_once=1)]
    assert statuses == [200, 200, 503]


def test_who_waits_too_long_is_told(limited) -> None:
    gateway, slow = limited("wait=200ms")
    assert [it.status for it in ask_all(gateway, slow, ["/slow", "/1"], at_once=1)] == [200, 504]
    assert 'queue wait= is over in upstream "app"' in gateway.error_log
    assert slow.asked == ["/slow"]


def test_who_leaves_makes_room(limited) -> None:
    gateway, slow = limited("size=1")
    with gateway.client() as first:
        first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: slow.asked)
        with gateway.client() as gone:
            gone.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.1)
        time.sleep(0.1)
        with gateway.client() as next:
            next.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.1)
            slow.is_over.set()
            assert next.read().text == "/next"
        assert first.read().text == "/slow"
    assert slow.asked == ["/slow", "/next"]


def test_a_crowd_that_leaves_the_line_leaves_nothing(limited) -> None:
    """More than the worker keeps requests for: their memory is freed while their places stand."""
    gateway, slow = limited(
        "size=4000", "worker_rlimit_nofile 8192; events { worker_connections 4096; }"
    )
    with gateway.client() as first:
        first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: slow.asked)
        workers = gateway.workers()
        crowd = [gateway.client() for _ in range(1300)]
        for client in crowd:
            client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in crowd:
            client.close()
        slow.is_over.set()
        assert first.read().text == "/slow"
    for n in range(3):
        assert gateway.get(f"/{n}").text == f"/{n}"
    assert gateway.workers() == workers


def test_what_another_worker_lets_go_is_noticed(limited) -> None:
    """With a zone max_conns counts for all; nobody tells, so it is looked at."""
    gateway, slow = limited("size=100; zone app 1m", "worker_processes 2;")
    targets = ["/slow", *(f"/{n}" for n in range(20))]
    found = ask_all(gateway, slow, targets)
    assert [(it.status, it.text) for it in found] == [(200, it) for it in targets]
    assert slow.most == 1


def test_a_wrong_one_is_refused(tmp_path) -> None:
    conf = "events { } http { upstream a { server 127.0.0.1:1; queue 5; } }"
    (tmp_path / "a.conf").write_text(conf)
    done = run("-t", "-p", str(tmp_path), "-c", str(tmp_path / "a.conf"))
    assert done.returncode == 1
    assert f'invalid parameter "5" in {tmp_path}/a.conf:1' in done.stderr
