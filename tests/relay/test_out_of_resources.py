"""No descriptors, no disk: others are served on, nothing spins, and all resumes afterwards."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

from gateway import wait_for
from recorder import answer

BIG = b"b" * (24 << 20)             # more than the kernel holds for a client
CONF = """
    server {
        listen 127.0.0.1:%%PORT%%;
        keepalive_timeout 60s;
        client_max_body_size 0;
        location / { return 200 fine; }
        location /up { proxy_pass http://%%UP%%; client_body_buffer_size 8k; }
    }
"""


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def highest_fd(pid: int) -> int:
    return max(map(int, os.listdir(f"/proc/{pid}/fd")))


def test_without_descriptors_who_is_here_is_served_and_others_come_later(headrace, upstream):
    gateway = headrace(
        CONF.replace("%%UP%%", upstream.address),
        main="events { worker_connections 1000; }",
    )
    with gateway.client() as early:
        assert early.get("/").text == "fine"
        pid = gateway.workers()[0]
        most = highest_fd(pid) + 8
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
        crowd = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(60)]
        wait_for(lambda: highest_fd(pid) >= most - 2, what="descriptors are used up")
        for _ in range(20):
            assert early.get("/").text == "fine"
        assert early.get("/up").status in (200, 502)
        ticks = cpu_ticks(pid)
        time.sleep(1)
        spent = (cpu_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK")
        assert spent < 0.5, "it spins over what it cannot accept"
        for sock in crowd:
            sock.close()
        wait_for(lambda: highest_fd(pid) < most - 4, what="descriptors are free again")
        assert early.get("/up").text == "ok"
    assert gateway.get("/").text == "fine"
    assert gateway.workers() == [pid]


def fill_disk(gateway, is_full: bool) -> None:
    """From here on a worker's files cannot grow past 64 KiB (EFBIG for ENOSPC), or can again."""
    hard = resource.RLIM_INFINITY
    for pid in gateway.workers():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (65536 if is_full else hard, hard))


def test_a_full_disk_fails_only_what_needs_it(headrace, upstream):
    gateway = headrace(CONF.replace("%%UP%%", upstream.address))
    body = b"x" * 500_000
    assert gateway.ask("POST", "/up", body).status == 200
    fill_disk(gateway, True)
    for _ in range(3):
        assert gateway.ask("POST", "/up", body).status == 500
        assert gateway.get("/").text == "fine"
        assert gateway.ask("POST", "/up", b"small").status == 200
    assert "[crit]" in gateway.error_log
    fill_disk(gateway, False)
    assert gateway.ask("POST", "/up", body).status == 200
    assert upstream.last.body == body


def test_an_answer_that_finds_the_disk_full_is_whole_or_cut(headrace, upstreams):
    gateway = headrace(CONF.replace("%%UP%%", upstreams(answer(BIG)).address))
    fill_disk(gateway, True)
    for _ in range(2):
        with gateway.client() as client:
            client.send("GET /up HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.8)                      # it does not keep up
            got = client.read()
            assert got.is_whole == (got.body == BIG)
            assert BIG.startswith(got.body)
    assert gateway.get("/").text == "fine"
    fill_disk(gateway, False)
    assert gateway.get("/up").body == BIG
