"""A process is killed inside the locks of the waiting zone, half through a change: the next one who
takes them mends what they guard, from tickets and cells, and nobody who waits is forgotten."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateway import ROOT, Gateway, wait_for
from test_waking import SERVER, Crowd

# Attaches the zone as a worker does, takes its locks by the same code, leaves queues and slots as
# a change that was cut would, and dies. `dies` off: it gives the locks back as if all were well.
KILLED = """
import os, signal, struct, sys
from proxy.base._shm import Zone

path, dies = sys.argv[1], sys.argv[2] == "dies"
zone = Zone.attach(os.open(path, os.O_RDWR))
view = memoryview(zone)
for number in range(64):
    assert zone.hold(number) == 0
n_entries, n_buckets, fresh = struct.unpack_from("=III", view, 0)
buckets_at, entries_at = struct.unpack_from("=QQ", view, 24)
HEAD = 8192  # of a zone, before its data
size = (buckets_at - entries_at) // n_entries
for i in range(1, fresh):
    at = entries_at - HEAD + i * size
    kind = struct.unpack_from("=I", view, at + 16)[0]
    if kind == 1:    # a version: its queue is lost
        struct.pack_into("=III", view, at + 32, 0, 0, 0)
    elif kind == 2:  # a replica: more slots taken than there are
        struct.pack_into("=I", view, at + 124, 77)
view[buckets_at - HEAD : buckets_at - HEAD + 4 * n_buckets] = bytes(4 * n_buckets)
print("done", flush=True)
if dies:
    os.kill(os.getpid(), signal.SIGKILL)
for number in range(64):
    zone.free(number)
"""
HTTP = """
    access_log off;
    function f { command %s server.py; min_scale 1; max_scale 1; concurrency 1; queue wait=15s; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location / { function_pass f; }
        location = /metrics { metrics; }
    }
"""


def zone_of(gateway: Gateway) -> str:
    """The path of the descriptor that the master has of it."""
    folder = Path(f"/proc/{gateway.process.pid}/fd")
    for path in folder.iterdir():
        if "headrace:headrace functions" in os.readlink(path):
            return str(path)
    raise AssertionError("the master has no zone of functions")


def number(gateway: Gateway, name: str) -> int:
    found = re.search(rf"^{name}{{.*}} (\d+)$", gateway.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else -1


@pytest.mark.parametrize("how, statuses", [("dies", [200] * 4), ("lives", [200] + [504] * 3)])
def test_who_waits_is_not_forgotten(headrace, how: str, statuses: list[int]) -> None:
    """Without a death nobody mends, and the same change harms: so the first case is no accident."""
    gateway = headrace(HTTP % sys.executable, "worker_processes 2;", start=False)
    (gateway.prefix / "server.py").write_text(SERVER)
    gateway.start()
    wait_for(lambda: gateway.get("/").status == 200, 15)
    crowd = Crowd(gateway, 1, "/?s=3")
    wait_for(lambda: number(gateway, "headrace_function_in_flight") == 1)
    waiting = Crowd(gateway, 3, "/?s=0.1")
    wait_for(lambda: number(gateway, "headrace_function_parked") == 3)
    helper = subprocess.run(
        [sys.executable, "-c", KILLED, zone_of(gateway), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert helper.stdout == "done\n", helper.stderr
    assert helper.returncode == (-signal.SIGKILL if how == "dies" else 0)
    began = time.monotonic()
    assert sorted(crowd.statuses() + waiting.statuses()) == statuses
    if how == "dies":
        assert time.monotonic() - began < 14  # by their turn, not by a look after the wait
        assert gateway.get("/max").text == "1"
        assert number(gateway, "headrace_function_parked") == 0
        assert Crowd(gateway, 10, "/?s=0.01").statuses() == [200] * 10
        assert gateway.get("/max").text == "1"
