"""Functions in a running gateway that sleep, wake, grow and shrink; nobody is lost on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from gateway import Gateway, descendants, title, wait_for
from rawclient import RawClient
from test_life import controller_paths

HANDLER = """
import time

def handle(event, context):
    time.sleep(float(event.query.get("s", 0)))
    return "ok"
"""
FAST = "window 1s; retention 0; "
SERVER = "server { listen 127.0.0.1:%%PORT%%; location / { function_pass f; } }"
KEY = "f.openfaas-fn/v1"


@pytest.fixture
def scaled(headrace):
    """A maker of gateways with the function f: scaled(words of its block)."""

    def make(words: str, main: str = "worker_processes 2;", more: str = "") -> Gateway:
        http = f"access_log off; function f {{ python app.py:handle; {words} }} {more} {SERVER}"
        gateway: Gateway = headrace(http, main, start=False)
        (gateway.prefix / "app.py").write_text(HANDLER)
        return gateway.start()

    return make


def look(gateway: Gateway) -> dict:
    """What the controller says of versions."""
    # beside the pid file, or elsewhere when that is too long for a socket's name
    (path,) = [it for it in controller_paths(gateway) if it.endswith("controller.sock")]
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(b"GET /replicas HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
        return json.loads(data.partition(b"\r\n\r\n")[2])
    return {}


def ready(gateway: Gateway, key: str = KEY) -> int:
    return look(gateway).get(key, {}).get("ready", 0)


def is_asleep(gateway: Gateway) -> bool:
    return KEY not in look(gateway) and "-> 0 replicas" in gateway.error_log


def many(gateway: Gateway, count: int, target: str = "/?s=0.3", method: str = "GET") -> list[int]:
    """So many requests at once: their statuses."""
    found: list[int] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            found.append(gateway.ask(method, target).status)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_it_sleeps_when_nobody_asks_and_wakes_when_somebody_does(scaled) -> None:
    gateway = scaled(FAST)
    assert gateway.get("/").status == 200
    for _ in range(2):
        wait_for(lambda: is_asleep(gateway), 20)
        births = gateway.error_log.count(" ready (")
        assert gateway.get("/").body == b"ok"
        wait_for(lambda births=births: gateway.error_log.count(" ready (") == births + 1)


def test_a_burst_at_zero_is_answered_whole(scaled) -> None:
    gateway = scaled(f"{FAST} concurrency 2; max_scale 4; initial_scale 0;")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    wait_for(lambda: is_asleep(gateway), 20)
    assert many(gateway, 40) == [200] * 40
    counts = [int(line.split("-> ")[1].split()[0]) for line in gateway.error_log.splitlines()
              if " replicas (" in line]  # fmt: skip
    assert max(counts) <= 4
    wait_for(lambda: is_asleep(gateway), 30)


def test_it_grows_with_its_load_and_shrinks_under_it(scaled) -> None:
    gateway = scaled("window 2s; concurrency 2; target 1; utilization 100%; max_scale 3;")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    statuses: list[int] = []
    is_over, is_less = threading.Event(), threading.Event()

    def ask(number: int) -> None:
        while not is_over.is_set() and not (number and is_less.is_set()):
            statuses.append(gateway.ask("POST", "/?s=0.05", b"x" * 65536).status)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: ready(gateway) == 3, 30)
        is_less.set()
        wait_for(lambda: ready(gateway) < 3, 30)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_by_requests_a_second(scaled) -> None:
    gateway = scaled("metric rps; target 5; utilization 100%; window 1s; max_scale 3;")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            gateway.get("/?s=0.02")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_for(lambda: ready(gateway) == 3, 30)
    finally:
        is_over.set()
        thread.join()


def test_min_scale_stays(scaled) -> None:
    gateway = scaled(f"{FAST} min_scale 2;", more="function g { python app.py:handle; window 1s;"
                     " retention 0; }")  # fmt: skip
    wait_for(lambda: ready(gateway) == 2, 20)
    wait_for(lambda: "g.openfaas-fn/v1: 1 -> 0 replicas" in gateway.error_log, 20)
    assert ready(gateway) == 2


def test_activation_scale(scaled) -> None:
    gateway = scaled(f"{FAST} activation_scale 3; initial_scale 0;")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    wait_for(lambda: ready(gateway) == 3, 20)


def test_who_sleeps_sleeps_on_when_the_controller_dies(scaled) -> None:
    gateway = scaled(FAST)
    wait_for(lambda: gateway.get("/").status == 200, 20)
    wait_for(lambda: is_asleep(gateway), 20)
    pids = descendants(gateway.process.pid)
    (old,) = [pid for pid in pids if "controller process" in title(pid)]
    os.kill(old, signal.SIGKILL)
    assert gateway.get("/").status == 200  # it waits until there is a controller
    wait_for(lambda: gateway.error_log.count("start controller process") == 2)
    log: Path = gateway.prefix / "logs" / "error.log"
    log.write_text(gateway.error_log.replace("[alert]", "[asked]"))


def test_a_request_that_streams_is_not_cut_by_sleep(scaled) -> None:
    gateway = scaled(f"{FAST} drain_timeout 20s;")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    assert gateway.get("/?s=4").status == 200


def test_every_version_is_scaled_on_its_own(scaled) -> None:
    gateway = scaled(f"{FAST} version v2 {{ tag next; max_scale 2; initial_scale 0; }}")
    wait_for(lambda: gateway.get("/").status == 200, 20)
    assert "f.openfaas-fn/v2" not in look(gateway)
    assert gateway.get("/", Knative_Serving_Tag="next").status == 200
    assert ready(gateway, "f.openfaas-fn/v2") == 1


def test_who_is_ordered_to_sleep_is_not_woken_by_what_was_before(scaled) -> None:
    """The window still holds the load of the last seconds: it decides nothing any more."""
    gateway = scaled("window 60s;", more="openfaas_auth off; server { openfaas_api on; "
                     "listen 127.0.0.1:%%PORT_1%%; }")  # fmt: skip
    for _ in range(4):
        assert gateway.get("/?s=0.7").text == "ok"
    order = json.dumps({"serviceName": "f", "replicas": 0}).encode()
    with RawClient(gateway.ports[1]) as client:
        client.send(b"POST /system/scale-function/f HTTP/1.1\r\nHost: a\r\nContent-Length: %d"
                    b"\r\n\r\n%b" % (len(order), order))  # fmt: skip
        assert client.read().status == 202
    wait_for(lambda: not look(gateway).get(KEY, {}).get("replicas"), 10)
    for _ in range(50):                          # two decisions and more
        assert not look(gateway).get(KEY, {}).get("replicas")
        time.sleep(0.1)
    assert gateway.get("/").text == "ok"
