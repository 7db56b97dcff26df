"""A new executable (USR2) beside the old one: one controller acts, and replicas live on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from gateway import Gateway, controllers, descendants, title, wait_for

HANDLER = """
import os

def handle(event, context):
    return str(os.getpid())
"""
HTTP = """
    access_log off;
    function f { python app.py:handle; min_scale 1; max_scale 1; }
    function g { python app.py:handle; initial_scale 0; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { function_pass f; }
        location /g { function_pass g; }
    }
"""


@pytest.fixture
def upgraded(headrace) -> Iterator[Callable[[], tuple[Gateway, int, str]]]:
    """A maker: (a gateway whose new executable has taken over, that one's pid, f's pid)."""
    pids: list[int] = []

    def make() -> tuple[Gateway, int, str]:
        gateway: Gateway = headrace(HTTP, start=False)
        (gateway.prefix / "app.py").write_text(HANDLER)
        gateway.start()
        replica = gateway.get("/").text
        pid_file = gateway.prefix / "logs/headrace.pid"
        old = pid_file.read_text()
        gateway.signal(signal.SIGUSR2)
        wait_for(lambda: pid_file.exists() and pid_file.read_text() not in ("", old), 15)
        pids.append(int(pid_file.read_text()))
        wait_for(lambda: "1 running replicas adopted" in gateway.error_log, 15)
        return gateway, pids[0], replica

    yield make
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda pid=pid: not title(pid), 10)


def test_the_new_controller_is_the_only_one_and_no_replica_ends(upgraded) -> None:
    gateway, new, replica = upgraded()
    assert gateway.process is not None
    wait_for(lambda: len(controllers(gateway.process.pid, new)) == 1, 10)
    assert gateway.get("/").text == replica
    asleep = gateway.get("/g").text              # whichever worker asks is heard
    gateway.signal(signal.SIGQUIT)
    gateway.process.wait(20)
    for _ in range(20):
        assert gateway.get("/").text == replica
        assert gateway.get("/g").text == asleep
    assert int(replica) not in descendants(new)  # nobody started it anew


def test_the_old_one_controls_again_when_the_new_one_goes(upgraded) -> None:
    gateway, new, replica = upgraded()
    assert gateway.process is not None
    old = gateway.process.pid
    gateway.signal(signal.SIGHUP)                # asks for no controller while the new one lives
    os.kill(new, signal.SIGQUIT)
    wait_for(lambda: not title(new), 20)
    wait_for(lambda: len(controllers(old)) == 1, 10)
    assert gateway.get("/").text == replica
    assert gateway.get("/g").status == 200
