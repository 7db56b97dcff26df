"""Requests that find nobody ready, or no slot free: they wait, in bounds, and none is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from gateway import Gateway, descendants, title, wait_for

# A server whose start takes SLOW seconds; /max says how many requests were at it at once.
SERVER = '''
import http.server, os, socket, sys, threading, time
from urllib.parse import parse_qs, urlsplit

lock = threading.Lock()
now = most = posts = 0

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        global now, most, posts
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if url.path.endswith("/max"):
            return self.say(b"%d" % most)
        if url.path.endswith("/posts"):
            return self.say(b"%d" % posts)
        if url.path.endswith("/stream"):
            return self.stream(float(query["s"][0]))
        with lock:
            now += 1
            most = max(most, now)
            posts += self.command == "POST"
        time.sleep(float(query.get("s", ["0"])[0]))
        with lock:
            now -= 1
        self.say(b"%d %d" % (os.getpid(), len(sent)))

    do_POST = do_GET

    def say(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, seconds):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(10):
            self.wfile.write(b"data: x\\n\\n")
            time.sleep(seconds / 10)
        self.close_connection = True

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512

time.sleep(float(os.environ.get("SLOW", "0")))
Server(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
'''
HTTP = """
    log_format told '$status $function_name $function_version $cold_start $queue_time $replica';
    access_log logs/access.log told;
    function f { command %(python)s server.py; %(inside)s }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        add_header X-Worker $pid;
        %(server)s
        location / { function_pass f; }
        location = /metrics { metrics; }
    }
"""


@pytest.fixture
def waking(headrace) -> Iterator:
    """A maker of gateways with the server above as function f."""

    def make(inside: str = "", server: str = "", workers: int = 1) -> Gateway:
        inside = f"min_scale 1; max_scale 1; {inside}"
        text = HTTP % {"python": sys.executable, "inside": inside, "server": server}
        gateway = headrace(text, f"worker_processes {workers};", start=False)
        (gateway.prefix / "server.py").write_text(SERVER)
        return gateway.start()

    return make


class Crowd:
    """Requests from threads of their own, each on a fresh connection: (status, body) each."""

    def __init__(self, gateway: Gateway, count: int, target: str = "/", **more) -> None:
        self.gateway, self.target, self.more = gateway, target, more
        self.answers: list[tuple[int, bytes]] = []
        self.threads = [threading.Thread(target=self.run) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        try:
            link.request(self.more.get("method", "GET"), self.target, self.more.get("body"))
            answer = link.getresponse()
            self.answers.append((answer.status, answer.read()))
        except (OSError, http.client.HTTPException) as error:
            self.answers.append((0, repr(error).encode()))
        finally:
            link.close()

    def statuses(self) -> list[int]:
        for thread in self.threads:
            thread.join()
        return sorted(status for status, _ in self.answers)


def told_of(gateway: Gateway, what: str) -> int:
    """What the metrics say of f: "parked", "in_flight"."""
    name = f'headrace_function_{what}{{function="f.openfaas-fn",version="v1"}} '
    return int(gateway.get("/metrics").text.partition(name)[2].split()[0])


def ready(gateway: Gateway) -> None:
    wait_for(lambda: gateway.get("/").status == 200, 15)


@pytest.mark.parametrize("workers", [1, 4])
def test_who_comes_before_the_first_replica_is_ready_waits_for_it(waking, workers: int) -> None:
    gateway = waking("env SLOW 0.5;", workers=workers)
    assert Crowd(gateway, 30).statuses() == [200] * 30
    gateway.get("/")
    wait_for(lambda: len(gateway.log()) == 31)
    rows = [line.split() for line in gateway.log()]
    assert {tuple(row[:3]) for row in rows} == {("200", "f.openfaas-fn", "v1")}
    assert all(float(row[4]) > 0 for row in rows if row[3] == "1")
    assert ["0", "0.000"] in [row[3:5] for row in rows]
    assert all(row[5].startswith("f.openfaas-fn/v1/") for row in rows)


@pytest.mark.parametrize("workers", [1, 4])
def test_slots_are_exact_over_all_workers(waking, workers: int) -> None:
    gateway = waking("concurrency 3;", workers=workers)
    ready(gateway)
    assert Crowd(gateway, 40, "/?s=0.05").statuses() == [200] * 40
    assert gateway.get("/max").body == b"3"


@pytest.mark.parametrize("workers", [1, 4])
def test_a_body_waits_in_its_socket_and_is_sent_once(waking, workers: int) -> None:
    gateway = waking("env SLOW 0.5; concurrency 4;", workers=workers)
    crowd = Crowd(gateway, 20, "/?s=0.02", method="POST", body=b"x" * 65536)
    assert crowd.statuses() == [200] * 20
    assert all(body.endswith(b" 65536") for _, body in crowd.answers)
    assert gateway.get("/posts").body == b"20"


def test_the_slots_of_a_killed_worker_are_given_on(waking) -> None:
    gateway = waking("concurrency 1;", workers=2)
    ready(gateway)
    clients = [gateway.client() for _ in range(40)]
    by_worker: dict[str, list] = {}
    for client in clients:
        by_worker.setdefault(client.get("/").get("X-Worker"), []).append(client)
    (pid, mine), (_, others) = by_worker.items()
    mine[0].send(b"GET /?s=60 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: told_of(gateway, "in_flight") == 1)
    others[0].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: told_of(gateway, "parked") == 1)
    others[0].sock.settimeout(30)                             # half of what the replica sleeps
    os.kill(int(pid), signal.SIGKILL)
    assert others[0].read("GET").status == 200
    path = gateway.prefix / "logs" / "error.log"
    wait_for(lambda: "exited on signal 9" in gateway.error_log)
    wait_for(lambda: gateway.get("/").get("X-Worker") not in by_worker, 10)
    path.write_text(gateway.error_log.replace("[alert]", "[asked]"))


NEVER = "function f { command sleep 1000; queue %s; timeout 60s; } server { %s" \
    " listen 127.0.0.1:%%%%PORT%%%%; location / { function_pass f; } " \
    " location = /metrics { metrics; } }"


def test_over_the_bound_the_limit_is_named(headrace) -> None:
    gateway = headrace(NEVER % ("size=2 wait=60s", ""))
    waiting = [gateway.client() for _ in range(2)]
    for client in waiting:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: told_of(gateway, "parked") == 2)
    answer = gateway.get("/")
    assert answer.status == 503
    assert answer.get("Retry-After") == "1"
    assert answer.get("Content-Type") == "application/json"
    told = json.loads(answer.body)
    assert (told["error"], told["limit"]) == ("queue_size", 2)
    assert (told["function"], told["version"]) == ("f.openfaas-fn", "v1")
    assert "function f.openfaas-fn/v1: queue_size (2)" in gateway.error_log
    metric = b'headrace_function_refused_total{function="f.openfaas-fn",version="v1",limit='
    told = gateway.get("/metrics").body
    assert metric + b'"queue_size"} 1' in told
    assert b'headrace_function_parked{function="f.openfaas-fn",version="v1"} 2' in told
    assert b'headrace_function_in_flight{function="f.openfaas-fn",version="v1"} 0' in told


def test_a_queue_is_bounded_in_bytes(headrace) -> None:
    gateway = headrace(NEVER % ("bytes=1k wait=60s", ""))
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (b"x" * 700))
        wait_for(lambda: told_of(gateway, "parked") == 1)
        answer = gateway.get("/", X_Long="x" * 700)
        assert answer.status == 503
        assert json.loads(answer.body)["error"] == "queue_bytes"


def test_who_waited_too_long_is_told_so(headrace) -> None:
    gateway = headrace(NEVER % ("wait=200ms", ""))
    answer = gateway.get("/")
    assert answer.status == 504
    assert json.loads(answer.body)["error"] == "queue_wait"
    assert "queue_wait (200 ms)" in gateway.error_log


def test_a_start_that_fails_is_a_502(headrace) -> None:
    conf = NEVER.replace("command sleep 1000;", "command /nowhere/at/all;")
    gateway = headrace(conf % ("wait=10s", ""))
    answer = gateway.get("/")
    assert answer.status == 502
    assert json.loads(answer.body)["error"] == "start_failed"
    assert "function f.openfaas-fn/v1: start_failed" in gateway.error_log


def test_an_error_page_answers_for_the_limit(headrace) -> None:
    page = "error_page 504 = @later; location @later { return 200 later; }"
    gateway = headrace(NEVER % ("wait=100ms", page))
    answer = gateway.get("/")
    assert (answer.status, answer.body) == (200, b"later")


@pytest.mark.parametrize("body", [b"", b"x" * 30_000], ids=["GET", "POST"])
def test_who_leaves_makes_room(headrace, body: bytes) -> None:
    gateway = headrace(NEVER % ("size=1 wait=60s", ""))
    with gateway.client() as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.send((head if body else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") + body)
        wait_for(lambda: told_of(gateway, "parked") == 1)
        assert gateway.get("/").status == 503
    wait_for(lambda: " 499 " in "\n".join(gateway.log()))
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.read("GET")


SLEEPERS = [
    ({"User-Agent": "kube-probe/1.30"}, "GET", "probe"),
    ({"User-Agent": "Knative-Ingress-Probe"}, "GET", "probe"),
    ({"K-Network-Probe": "probe"}, "GET", "probe"),
    ({"Origin": "http://a", "Access-Control-Request-Method": "POST"}, "OPTIONS", "preflight"),
]


@pytest.mark.parametrize(("fields", "method", "word"), SLEEPERS, ids=lambda it: str(it))
def test_probes_and_preflights_wake_nobody(headrace, fields, method: str, word: str) -> None:
    gateway = headrace(NEVER % ("wait=10s", ""))
    link = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    link.request(method, "/", headers=fields)
    answer = link.getresponse()
    assert (answer.status, answer.getheader("X-Function-Asleep")) == (204, word)
    link.close()


def test_the_timeout_is_for_the_whole_answer_but_not_for_streams(waking) -> None:
    gateway = waking("timeout 400ms;")
    ready(gateway)
    answer = gateway.get("/?s=5")
    assert answer.status == 504
    assert json.loads(answer.body)["error"] == "timeout"
    assert "timeout (400 ms)" in gateway.error_log
    answer = gateway.get("/stream?s=1")
    assert answer.status == 200
    assert answer.body.count(b"data: x") == 10


def test_streams_that_do_not_count_leave_their_slot(waking) -> None:
    gateway = waking("concurrency 1; count_streams off;")
    ready(gateway)
    with gateway.client() as client:
        client.send(b"GET /stream?s=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"data: x" in client.sock.recv(65536) + client.sock.recv(65536)
        assert gateway.get("/").status == 200                 # long before the stream is over


def test_answers_can_say_how_long_they_waited(waking) -> None:
    gateway = waking("env SLOW 0.3;", "server_timing on;")
    queue, start = gateway.get("/").get("Server-Timing").split(", ")
    assert queue.startswith("queue;dur=")
    assert start.startswith("start;dur=")
    assert gateway.get("/").get("Server-Timing") == "queue;dur=0"


def test_a_replica_that_refuses_is_asked_again_when_it_listens(headrace) -> None:
    gateway = headrace(
        "function f { static 127.0.0.1:%%PORT_1%%; queue wait=10s; } server {"
        " listen 127.0.0.1:%%PORT%%; location / { function_pass f; } }"
    )
    crowd = Crowd(gateway, 5)
    time.sleep(0.5)
    late = socket.create_server(("127.0.0.1", gateway.ports[1]))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _address = late.accept()
                if link.recv(65536):
                    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                link.close()

    threading.Thread(target=serve, daemon=True).start()
    assert crowd.statuses() == [200] * 5
    late.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_a_burst_at_a_function_that_sleeps_is_answered(headrace, workers: int) -> None:
    gateway = headrace(
        "function f { python app.py:handle; min_scale 0; initial_scale 0; max_scale 4;"
        " concurrency 8; } server { listen 127.0.0.1:%%PORT%%; server_timing on;"
        " location / { function_pass f; } }",
        f"worker_processes {workers};",
        start=False,
    )
    (gateway.prefix / "app.py").write_text(
        "import time\n\ndef handle(event, context):\n    time.sleep(0.01)\n    return 'awake'\n"
    )
    gateway.start()
    crowd = Crowd(gateway, 100, "/", method="POST", body=b"x" * 65536)
    assert crowd.statuses() == [200] * 100
    assert {body for _, body in crowd.answers} == {b"awake"}


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waits_is_answered_over_a_reload_and_a_controllers_death(waking, workers: int) -> None:
    gateway = waking("env SLOW 2; queue wait=30s;", workers=workers)
    crowd = Crowd(gateway, 20, "/", method="POST", body=b"x" * 65536)
    time.sleep(0.3)
    gateway.signal(signal.SIGHUP)
    time.sleep(0.3)
    (pid,) = [it for it in descendants(gateway.process.pid) if "controller" in title(it)]
    os.kill(pid, signal.SIGKILL)
    assert crowd.statuses() == [200] * 20
    assert gateway.get("/posts").body == b"20"
    path = gateway.prefix / "logs" / "error.log"
    wait_for(lambda: "exited on signal 9" in gateway.error_log)
    path.write_text(gateway.error_log.replace("[alert]", "[asked]"))
