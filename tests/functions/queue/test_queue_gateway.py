"""Asynchronous calls through a whole gateway: accepted by workers, stored by the controller, run
by functions, and nothing lost when the controller is killed."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, descendants, internal_sockets, run, title, wait_for
from natsserver import Nats

CALLS = int(os.environ.get("GATEWAY_CALLS", "300"))
KILLS = int(os.environ.get("GATEWAY_KILLS", "2"))
HANDLER = """
import os, time

def handle(event, context):
    id = event.headers.get("X-Call-Id", "")
    if event.path.endswith("/fail") and event.headers.get("X-Retry") == "0":
        return {"statusCode": 503, "body": "not yet"}
    if event.path.endswith("/dead"):
        return {"statusCode": 500, "body": "never"}
    fd = os.open("called", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(fd, id.encode() + b"\\n")
    os.close(fd)
    return {"body": {"method": event.method, "path": event.path, "query": dict(event.query),
                     "bytes": len(event.body), "id": id, "retry": event.headers.get("X-Retry")}}
"""
HTTP = """
    access_log off;
    functions {
        queue sqlite:var/queue.db;
        callback_allow 127.0.0.1;
        callback_secret hush;
        %(more)s
    }
    function now   { python app.py:handle; min_scale 1; async_parallelism 8;
                     async_retry attempts=3 min_wait=10ms max_wait=20ms; }
    function later { python app.py:handle; min_scale 1; async on; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        openfaas_api on;
        location /later/ { async on; function_pass now; client_max_body_size 8m; }
        location /now/   { function_pass now; }
        location /rewritten/ { rewrite ^/rewritten/(.*) /r/$1 break; async on; function_pass now; }
        location = /own { function_pass later; }
    }
"""


@pytest.fixture
def gateway(headrace) -> Iterator[Gateway]:
    it = headrace(HTTP % {"more": ""}, "worker_processes 2;", start=False)
    (it.prefix / "app.py").write_text(HANDLER)
    it.start()
    wait_for(lambda: it.get("/now/x").status == 200, 20)
    yield it


class Hook:
    """A receiver of callbacks."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        heard = self.heard

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def accepted(gateway: Gateway, method: str, target: str, body: bytes = b"", **headers: str) -> str:
    answered = gateway.ask(method, target, body, **headers)
    assert answered.status == 202, answered
    return answered.get("x-call-id")


def ended(gateway: Gateway, id: str):
    """The answer to a call, once there is one."""
    found = []

    def look() -> bool:
        found[:] = [gateway.get(f"/async-function/{id}")]
        return found[0].status != 202

    wait_for(look, 15)
    return found[0]


def test_calls_by_path(gateway: Gateway) -> None:
    id = accepted(gateway, "POST", "/async-function/now/a?b=c", b"x" * 1000)
    answered = ended(gateway, id)
    assert answered.status == 200
    assert answered.get("x-call-state") == "done"
    assert answered.get("x-function-status") == "200"
    seen = json.loads(answered.body)
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/a", {"b": "c"})
    assert (seen["bytes"], seen["id"]) == (1000, id)
    assert gateway.ask("POST", "/async-function/nobody").status == 404
    assert gateway.ask("POST", "/async-function/now/%2e%2e/later").status == 400
    assert gateway.ask("POST", "/async-function/now", b"x" * (1 << 20) + b"x").status == 413
    own = accepted(gateway, "POST", "/async-function/now", X_Call_Id="given-by-me")
    assert own == "given-by-me"
    first = accepted(gateway, "POST", "/async-function/now", Idempotency_Key="k")
    assert accepted(gateway, "POST", "/async-function/now", Idempotency_Key="k") == first


def test_locations_and_functions_that_are_async(gateway: Gateway) -> None:
    for target, path in (
        ("/later/x%20y?q=1", "/later/x y"),
        ("/rewritten/z?q=1", "/r/z"),
        ("/function/later/p?q=1", "/p"),
        ("/own?q=1", "/own"),
    ):
        id = accepted(gateway, "PUT", target, b"12345")
        seen = json.loads(ended(gateway, id).body)
        assert (seen["method"], seen["path"]) == ("PUT", path)
        assert (seen["bytes"], seen["query"]) == (5, {"q": "1"})
    assert gateway.ask("PUT", "/now/x").status == 200


def test_retries_callbacks_and_dead_letters(gateway: Gateway) -> None:
    hook = Hook()
    id = accepted(gateway, "POST", "/async-function/now/fail", X_Callback_Url=hook.url)
    assert json.loads(ended(gateway, id).body)["retry"] == "1"
    wait_for(lambda: hook.heard)
    headers, body = hook.heard[0]
    assert headers["x-call-id"] == id
    assert headers["x-function-status"] == "200"
    mark = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={mark}"
    metadata = "http://169.254.169.254/latest/meta-data"
    assert gateway.ask("POST", "/async-function/now", X_Callback_Url=metadata).status == 400
    id = accepted(gateway, "POST", "/async-function/now/dead", b"kept")
    answered = ended(gateway, id)
    assert (answered.get("x-call-state"), answered.body) == ("dead", b"never")
    assert gateway.get("/system/queue").status == 401
    words = ("-g", f"http://127.0.0.1:{gateway.port}")
    auth = ("--auth", str(gateway.prefix / "var/openfaas-auth"))
    listed = run("queue", "dead", *words, *auth)
    assert id in listed.stdout and "status 500" in listed.stdout, listed.stderr
    refused = run("queue", "dead", *words, "--auth", os.devnull)
    assert refused.returncode == 1 and "password" in refused.stderr
    assert run("queue", "replay", id, *words, *auth).stdout == "1 queued again\n"


def controller_of(gateway: Gateway) -> int:
    found = [it for it in descendants(gateway.process.pid) if "controller process" in title(it)]
    return found[0] if found else 0


def kill_controller(gateway: Gateway) -> None:
    pid = controller_of(gateway)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: controller_of(gateway) not in (0, pid))


def test_a_killed_controller_loses_nothing(gateway: Gateway) -> None:
    ids: list[str] = []
    others: Counter[int] = Counter()
    turns = iter(range(CALLS))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            while True:
                with contextlib.suppress(OSError, ValueError, AssertionError):
                    answered = gateway.ask("POST", f"/async-function/now/{turn}", b"x" * 100)
                    if answered.status == 202:
                        with lock:
                            ids.append(answered.get("x-call-id"))
                        break
                    with lock:
                        others[answered.status] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(KILLS):
        wait_for(lambda part=number + 1: len(ids) >= CALLS * part // (KILLS + 2), 120)
        kill_controller(gateway)
    for thread in threads:
        thread.join()
    assert len(set(ids)) == CALLS
    assert set(others) <= {502, 503, 504}  # while nobody listens; never a wrong 202 or a 404
    file = gateway.prefix / "called"

    def called() -> set[str]:
        return set(file.read_text().split())

    wait_for(lambda: called() >= set(ids), 120)
    print(f"{CALLS} calls, {KILLS} kills: {dict(others)} refused, "
          f"{len(file.read_text().split()) - len(called())} ran twice")  # fmt: skip
    log = gateway.prefix / "logs/error.log"  # the fixture would mind: these alerts were asked for
    log.write_text(log.read_text().replace("[alert]", "[asked]"))


def test_an_upgrade_refuses_and_loses_nothing(gateway: Gateway) -> None:
    ids: list[str] = []
    others: Counter[int] = Counter()
    is_over = threading.Event()

    def client() -> None:
        while not is_over.is_set():
            answered = gateway.ask("POST", "/async-function/now", b"x" * 100)
            if answered.status == 202:
                ids.append(answered.get("x-call-id"))
            else:
                others[answered.status] += 1
            time.sleep(0.005)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    old, pid_file = gateway.process.pid, gateway.prefix / "logs/headrace.pid"
    gateway.signal(signal.SIGUSR2)
    wait_for(lambda: pid_file.exists() and int(pid_file.read_text() or old) != old, 15)
    new = int(pid_file.read_text())
    try:
        wait_for(lambda: gateway.error_log.count("db is open") == 2, 15)
        gateway.signal(signal.SIGQUIT)
        gateway.process.wait(30)
        count = len(ids)
        wait_for(lambda: len(ids) > count + 20)
        is_over.set()
        for thread in threads:
            thread.join()
        wait_for(lambda: set((gateway.prefix / "called").read_text().split()) >= set(ids), 60)
        assert not others
    finally:
        is_over.set()
        os.kill(new, signal.SIGTERM)
        wait_for(lambda: not title(new), 10)


def test_it_wakes_what_sleeps(headrace) -> None:
    more = "} function asleep { python app.py:handle; initial_scale 0;"
    it = headrace(HTTP % {"more": more}, start=False)
    (it.prefix / "app.py").write_text(HANDLER)
    it.start()
    wait_for(lambda: it.get("/now/x").status == 200, 20)
    assert "asleep" not in it.error_log
    id = accepted(it, "POST", "/async-function/asleep/x")
    assert json.loads(ended(it, id).body)["id"] == id


def test_two_gateways_share_a_queue_in_nats(headrace, tmp_path: Path) -> None:
    nats = Nats(tmp_path / "nats").start()
    try:
        url = f"nats://127.0.0.1:{nats.port}/shared"
        http = (HTTP % {"more": "queue_limit bytes=10m;"}).replace("sqlite:var/queue.db", url)
        gateways = []
        for _ in "ab":
            it = headrace(http, start=False)
            (it.prefix / "app.py").write_text(HANDLER)
            gateways.append(it.start())
        one, other = gateways
        for it in gateways:
            wait_for(lambda it=it: it.get("/now/x").status == 200, 20)
        ids = [accepted(one, "POST", "/async-function/now") for _ in range(60)]
        for id in ids:
            assert ended(other, id).get("x-call-state") == "done"
        called = [(it.prefix / "called").read_text().split() for it in gateways]
        assert set(ids) <= set(called[0] + called[1])
        assert set(ids) & set(called[1])
        nats.stop()
        refused = one.ask("POST", "/async-function/now")
        assert (refused.status, refused.get("retry-after")) == (503, "5")
        nats.start()
        wait_for(lambda: one.ask("POST", "/async-function/now").status == 202)
    finally:
        nats.stop()


def test_a_new_conf_changes_the_queue(gateway: Gateway) -> None:
    accepted(gateway, "POST", "/async-function/now", b"x" * 1000)
    gateway.write_conf(HTTP % {"more": "async_body_size 100;"}, "worker_processes 2;")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: gateway.ask("POST", "/async-function/now", b"x" * 1000).status == 413)
    ended(gateway, accepted(gateway, "POST", "/async-function/now", b"x" * 99))
    wait_for(lambda: gateway.error_log.count("exited with code 0") >= 2)  # the old workers


def test_nobody_else_reaches_the_controller(gateway: Gateway) -> None:
    assert gateway.ask("POST", "/async-call/now.openfaas-fn/x").status == 404
    paths = internal_sockets(gateway, gateway.process.pid)
    assert paths
    for path in paths:
        assert path.stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
