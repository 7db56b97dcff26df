"""`metrics` and `stub_status` of a running gateway: all processes summed, nothing goes down."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading

from gateway import Gateway, wait_for
from rawclient import Closed

CONF = """
limit_req_zone $uri zone=req:64k rate=1r/m;
log_format c '$connections_active $connections_reading $connections_writing $connections_waiting';
access_log logs/c.log c;
server {
    listen 127.0.0.1:%%PORT%%; server_name the.server;
    location / { return 200 ok; }
    location /gone { return 410; }
    location /req { limit_req zone=req; proxy_pass http://127.0.0.1:UPSTREAM; }
    location /pass { proxy_pass http://127.0.0.1:UPSTREAM; }
    location /down { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    location = /metrics { metrics; }
    location = /status { stub_status; }
}
"""
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')


def scrape(gateway) -> dict[str, float]:
    """{name{labels}: value}, every line held to the format."""
    answered = gateway.get("/metrics")
    assert answered.status == 200
    assert answered.get("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answered.text.endswith("\n")
    found: dict[str, float] = {}
    typed = set()
    for line in answered.text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[f"{match[1]}{{{match[2] or ''}}}"] = float(match[3])
            assert re.sub(r"_(bucket|sum|count)$", "", match[1]) in typed or match[1] in typed
    return found


def total(found: dict[str, float], name: str, *labels: str) -> float:
    return sum(
        value for key, value in found.items()
        if key.startswith(name + "{") and all(label in key for label in labels)
    )  # fmt: skip


def test_what_was_done_is_counted_where_it_was_done(headrace, upstream):
    gateway = headrace(CONF.replace("UPSTREAM", str(upstream.port)))
    with gateway.client() as client:
        for target in ("/a", "/b", "/gone", "/req", "/req", "/pass/x", "/down"):
            client.get(target)
    found = scrape(gateway)
    name = "headrace_http_requests_total"
    assert total(found, name, 'location="/"', 'status="2xx"', 'server="the.server"') == 2
    assert total(found, name, 'location="/gone"', 'status="4xx"') == 1
    assert total(found, name, 'location="/req"', 'status="2xx"') == 1
    assert total(found, name, 'location="/req"', 'status="5xx"') == 1
    assert total(found, name, 'location="/down"', 'status="5xx"') == 1
    took = "headrace_http_request_duration_seconds"
    assert total(found, took + "_bucket", 'location="/"', 'le="+Inf"') == 2
    assert total(found, took + "_count", 'location="/"') == 2
    limited = "headrace_limit_req_requests_total"
    assert total(found, limited, 'zone="req"', 'decision="passed"') == 1
    assert total(found, limited, 'zone="req"', 'decision="rejected"') == 1
    asked, failed = "headrace_upstream_peer_requests_total", "headrace_upstream_peer_fails_total"
    assert total(found, asked, f'peer="127.0.0.1:{upstream.port}"') == 2
    assert total(found, failed, f'peer="127.0.0.1:{upstream.port}"') == 0
    assert total(found, failed, f'peer="127.0.0.1:{gateway.ports[1]}"') == 1
    up = "headrace_upstream_peer_up"
    assert total(found, up, f'peer="127.0.0.1:{upstream.port}"') == 1
    assert total(found, "headrace_upstream_peer_active") == 0
    assert found["headrace_connections_accepted_total{}"] == 2


def test_stub_status_and_the_states_of_connections(headrace, upstream):
    gateway = headrace(CONF.replace("UPSTREAM", str(upstream.port)))
    idle, reading = gateway.client(), gateway.client()
    idle.get("/")
    reading.send("GET / HTTP/1.1\r\n")
    shape = re.compile(
        r"Active connections: (\d+) \nserver accepts handled requests\n (\d+) (\d+) (\d+) \n"
        r"Reading: (\d+) Writing: (\d+) Waiting: (\d+) \n"
    )

    def states() -> list[int]:
        match = shape.fullmatch(gateway.get("/status").text)
        assert match
        return [int(it) for it in match.groups()]

    wait_for(lambda: states()[0] == 3)
    active, accepted, handled, requests, *state = states()
    assert (active, state) == (3, [1, 1, 1])
    assert accepted == handled
    assert requests >= accepted - 1
    idle.close()
    reading.close()
    wait_for(lambda: states()[0] == 1)
    assert states()[4:] == [0, 1, 0]
    assert gateway.ask("POST", "/status").status == 405
    assert all(re.fullmatch(r"\d+ \d+ \d+ \d+", line) for line in gateway.log("c.log"))


def test_workers_are_summed_and_a_killed_one_takes_nothing_away(tmp_path):
    conf = CONF.replace("UPSTREAM", "1")
    gateway = Gateway(tmp_path, conf, main="worker_processes 2;").start()
    answered: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError, Closed), gateway.client() as client:
                for _ in range(20):  # until its worker is killed
                    status = client.get("/").status
                    answered.append(status)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    before: dict[str, float] = {}
    try:
        for turn in range(6):
            seen = len(answered)
            wait_for(lambda seen=seen: len(answered) > seen + 100)
            now = scrape(gateway)
            lower = {
                key for key, value in before.items()
                if "_total{" in key or "_count{" in key or "_bucket{" in key
                if now.get(key, 0) < value
            }  # fmt: skip
            assert not lower
            before = now
            if turn % 2:
                workers = gateway.workers()
                os.kill(workers[0], signal.SIGKILL)
                wait_for(lambda gone=workers[0]: gone not in gateway.workers())
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    wait_for(lambda: scrape(gateway)['headrace_connections{state="active"}'] == 1)
    said = total(scrape(gateway), "headrace_http_requests_total", 'location="/"')
    gateway.stop()
    # each of 3 killed workers may have died between an answer's write and its count, 3 clients
    assert said >= len(answered) - 3 * 3


def test_counters_go_on_over_a_reload(headrace):
    gateway = headrace(CONF.replace("UPSTREAM", "1"))
    for _ in range(5):
        gateway.get("/")
    gateway.reload()
    gateway.get("/")
    assert total(scrape(gateway), "headrace_http_requests_total", 'location="/"') == 6
