"""Functions in a running gateway: they start, answer, die and are replaced; nobody notices."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, descendants, title, wait_for

from proxy.functions.keeper import KILL_AFTER_S

HANDLER = '''
import os, time

def handle(event, context):
    if event.path == "/py/wait":
        open("waits", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    if event.path == "/py/print":
        print("printed", event.query["what"])
    return {"body": {"version": VERSION, "pid": os.getpid(), "path": event.path,
                     "headers": event.headers, "bytes": len(event.body)}}
'''
SERVER = '''
import http.server, os, sys

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"%d %s" % (os.getpid(), os.environ.get("WORD", "").encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
'''
HTTP = """
    access_log off;
    function py { python app.py:handle; min_scale %(scale)d; %(more)s }
    function cmd { command %(python)s server.py; ready /; env WORD word; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location /py { function_pass py; }
        location /cmd { function_pass cmd; }
        location / { return 200 plain; }
    }
"""


def conf(scale: int = 2, more: str = "") -> str:
    return HTTP % {"scale": scale, "more": more, "python": sys.executable}


def write_handler(gateway: Gateway, version: int) -> None:
    (gateway.prefix / "app.py").write_text(f"VERSION = {version}\n{HANDLER}")


@pytest.fixture
def functions(headrace) -> Iterator:
    """A maker of gateways with both kinds of function, both ready."""

    def make(scale: int = 2, main: str = "worker_processes 2;") -> Gateway:
        gateway = headrace(conf(scale), main, start=False)
        write_handler(gateway, 1)
        (gateway.prefix / "server.py").write_text(SERVER)
        gateway.start()
        wait_for(lambda: len(ready(gateway, "py")) == scale and ready(gateway, "cmd"), 15)
        wait_for(lambda: gateway.get("/py").status == 200 == gateway.get("/cmd").status)
        return gateway

    return make


def controller_paths(gateway: Gateway) -> list[str]:
    """Where the controller listens: a Unix socket that the master holds."""
    held = set(open_files(gateway.process.pid).values())
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [row[7] for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in held]


def look(gateway: Gateway) -> dict:
    """What the controller says of its replicas."""
    for path in controller_paths(gateway):
        if not path.endswith("controller.sock"):
            continue
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
            sock.settimeout(2)
            sock.connect(path)
            sock.sendall(b"GET /replicas HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := sock.recv(65536):
                data += piece
            found = json.loads(data.partition(b"\r\n\r\n")[2])
            return {key.partition(".openfaas-fn/")[0]: it for key, it in found.items()}
    return {}


def ready(gateway: Gateway, name: str) -> dict[int, str]:
    """pid → id of the replicas that are ready."""
    found = look(gateway).get(name, {"replicas": []})["replicas"]
    return {it["pid"]: it["id"] for it in found if it["state"] == "ready"}


def controller(gateway: Gateway) -> int:
    found = [it for it in descendants(gateway.process.pid) if "controller process" in title(it)]
    return found[0] if found else 0


BODY = (None, None, None, b"x" * 65536)


class Load:
    """GETs and POSTs from four threads, over two kept connections and many fresh ones."""

    def __init__(self, gateway: Gateway, path: str = "/py") -> None:
        self.gateway = gateway
        self.path = path
        self.done = 0
        self.failed: list[str] = []
        self.versions: list[int] = []
        self.is_over = False
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(4)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self.done > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        for thread in self.threads:
            thread.join()

    def run(self, number: int) -> None:
        is_kept = number < 2
        link = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)
        is_fresh = True
        while not self.is_over:
            try:
                link.request("POST" if number == 3 else "GET", self.path, BODY[number])
                answer = link.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                link.close()
                if is_fresh:  # else a worker that leaves closed it as we wrote: ask again
                    self.failed.append(repr(error))
                is_fresh = True
                continue
            is_fresh = False
            if answer.status != 200:
                self.failed.append(f"{answer.status} {body[:80]!r}")
            else:
                self.versions.append(json.loads(body)["version"])
            self.done += 1
            if not is_kept:
                link.close()
                is_fresh = True
        link.close()

    def more(self, count: int = 100) -> None:
        """Until so many further requests are answered."""
        goal = self.done + count
        wait_for(lambda: self.done >= goal, 10)


def test_both_kinds_answer_and_are_told_who_asks(functions) -> None:
    gateway = functions()
    answer = gateway.get("/py/a?b=1", Host="shop.test:81", X_Forwarded_For="10.0.0.9")
    told = json.loads(answer.body)
    fields = told["headers"]
    assert told["path"] == "/py/a"
    assert fields["Host"] == fields["X-Forwarded-Host"] == "shop.test:81"
    assert fields["X-Forwarded-Proto"] == "http"
    assert fields["X-Forwarded-For"].endswith("127.0.0.1")
    assert len(fields["X-Call-Id"]) == len(fields["X-Request-Id"]) == 32
    with gateway.client() as client:
        client.send(
            b"GET /py HTTP/1.1\r\nHost: h\r\nX-Call-Id: mine\r\nX-Request-Id: theirs\r\n"
            b"Connection: close\r\n\r\n"
        )
        said = client.read_all()
    assert b'"X-Call-Id": "mine"' in said
    assert b'"X-Request-Id": "theirs"' in said
    assert gateway.get("/cmd").body.endswith(b" word")
    big = gateway.ask("POST", "/py", b"x" * 900_000)
    assert json.loads(big.body)["bytes"] == 900_000


def test_a_killed_replica_is_replaced_and_the_other_answers(functions) -> None:
    gateway = functions()
    before = ready(gateway, "py")
    victim = next(iter(before))
    with Load(gateway) as load:
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in ready(gateway, "py"))
        told = len(load.failed)  # a POST that was under way may have been lost with it
        assert told <= 4
        wait_for(lambda: len(ready(gateway, "py")) == 2, 15)
        load.more()
    assert load.failed[told:] == []
    assert "exited on signal 9" in gateway.error_log


def test_the_controller_dies_and_the_replicas_go_on(functions) -> None:
    gateway = functions()
    before, command = ready(gateway, "py"), ready(gateway, "cmd")
    old = controller(gateway)
    with Load(gateway) as load:
        os.kill(old, signal.SIGKILL)
        load.more()
        wait_for(lambda: controller(gateway) not in (0, old), 10)
        wait_for(lambda: ready(gateway, "py") == before, 10)
        load.more()
        wait_for(lambda: ready(gateway, "cmd") == command)
        # it is in charge again
        os.kill(next(iter(before)), signal.SIGKILL)
        wait_for(lambda: len(ready(gateway, "py").keys() - before.keys()) == 1, 15)
        load.more()
    assert len(load.failed) <= 4
    log = gateway.error_log.replace("on signal 9 (core dumped)", "on signal 9")
    assert "running replicas adopted" in log
    # the fixture would mind: this alert was asked for
    log_path = gateway.prefix / "logs" / "error.log"
    log_path.write_text(log.replace("[alert]", "[asked]"))


def test_a_changed_function_is_replaced_without_a_failure(functions) -> None:
    gateway = functions()
    before, command = ready(gateway, "py"), ready(gateway, "cmd")
    with Load(gateway) as load:
        write_handler(gateway, 2)
        gateway.reload()
        wait_for(lambda: ready(gateway, "py").keys().isdisjoint(before), 15)
        load.more()
        wait_for(lambda: len(look(gateway)["py"]["replicas"]) == 2, 15)
    assert load.failed == []
    assert {1, 2} == set(load.versions)
    assert load.versions[-1] == 2
    assert ready(gateway, "cmd") == command
    assert not any(title(pid) for pid in before)


SLOW = '''
import http.server, os, time

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        time.sleep(3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
'''
ONE_EACH = """
    function slow { command %(python)s slow.py; concurrency 1; min_scale %(n)d; max_scale %(n)d; }
    server { listen 127.0.0.1:%%%%PORT%%%%; location / { function_pass slow; }
             location = /metrics { metrics; } }
"""


def test_all_that_leave_together_are_drained(headrace) -> None:
    """A server that a TERM ends at once: each is asked to go only when nobody waits for it."""
    before, after = (ONE_EACH % {"python": sys.executable, "n": n} for n in (4, 1))
    gateway: Gateway = headrace(before, "worker_processes 2;", start=False)
    (gateway.prefix / "slow.py").write_text(SLOW)
    gateway.start()
    wait_for(lambda: len(ready(gateway, "slow")) == 4, 15)
    clients = [gateway.client() for _ in range(4)]
    for client in clients:
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    at_work = 'headrace_function_in_flight{function="slow.openfaas-fn",version="v1"} 4'
    wait_for(lambda: at_work in gateway.get("/metrics").text)
    gateway.write_conf(after, "worker_processes 2;")
    gateway.signal(signal.SIGHUP)
    assert [client.read().status for client in clients] == [200] * 4
    wait_for(lambda: len(ready(gateway, "slow")) == 1, 15)


def test_scale_and_removal_by_reload(functions) -> None:
    gateway = functions()
    before = ready(gateway, "py")
    with Load(gateway) as load:
        gateway.write_conf(conf(scale=3))
        gateway.reload()
        wait_for(lambda: len(ready(gateway, "py")) == 3, 15)
        assert before.items() <= ready(gateway, "py").items()
        gateway.write_conf(conf(scale=1))
        gateway.reload()
        wait_for(lambda: len(look(gateway)["py"]["replicas"]) == 1, 15)
        load.more()
    assert load.failed == []
    gateway.write_conf("server { listen 127.0.0.1:%%PORT%%; return 200 plain; }")
    gateway.reload()
    wait_for(lambda: look(gateway) == {}, 15)
    assert gateway.get("/").status == 200


def test_a_drained_replica_finishes_what_it_does(functions) -> None:
    gateway = functions(scale=1)
    (pid,) = ready(gateway, "py")
    with gateway.client() as client:
        client.send(b"GET /py/wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_for(lambda: list(gateway.prefix.glob("**/waits")))
        write_handler(gateway, 2)
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: gateway.get("/py").body.find(b'"version": 2') > 0)
        assert title(pid)
        next(gateway.prefix.glob("**/waits")).with_name("go").touch()
        said = client.read_all()
    assert b'"version": 1' in said
    wait_for(lambda: not title(pid))


BROKEN = [
    ("python broken.py:f;", "nothing_there"),
    ("command /nowhere/at/all;", 'there is no program "/nowhere/at/all"'),
    ("command false;", "exited with code 1"),
    ("command sleep 100; start_timeout 100ms;", "was not ready within 100 ms"),
    ("command yes; start_timeout 200ms;", "was not ready within 200 ms, last words: y"),
]


@pytest.mark.parametrize(("how", "message"), BROKEN, ids=[how for how, _ in BROKEN])
def test_what_cannot_start_is_told_and_harms_nobody(headrace, how: str, message: str) -> None:
    gateway = headrace(
        f"function bad {{ {how} queue wait=2s; }} function good {{ python good.py:f; }}"
        "server { listen 127.0.0.1:%%PORT%%; location /bad { function_pass bad; }"
        "location /good { function_pass good; } }",
        start=False,
    )
    (gateway.prefix / "broken.py").write_text("import nothing_there\n")
    (gateway.prefix / "good.py").write_text("def f(event, context):\n    return 'good'\n")
    gateway.start()
    wait_for(lambda: gateway.get("/good").body == b"good", 10)
    assert gateway.get("/bad").status in (502, 504)
    wait_for(lambda: message in gateway.error_log, 10)
    gateway.stop()
    text = gateway.error_log
    # the trace is the function's own, told line by line
    path = gateway.prefix / "logs" / "error.log"
    path.write_text(text.replace("Traceback", "its trace"))


def test_who_dies_again_and_again_is_started_slower_and_slower(headrace) -> None:
    began = time.monotonic()
    gateway = headrace("function f { command false; min_scale 1; }")
    wait_for(lambda: gateway.error_log.count("exited with code 1") >= 4, 30)
    assert time.monotonic() - began >= 0.1 + 0.2 + 0.4  # never sooner


def test_who_ignores_term_is_killed(headrace) -> None:
    gateway = headrace(f"function f {{ command {sys.executable} server.py; }}", start=False)
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    (gateway.prefix / "server.py").write_text(stubborn + SERVER)
    gateway.start()
    wait_for(lambda: ready(gateway, "f"))
    (pid,) = ready(gateway, "f")
    gateway.write_conf("server { listen 127.0.0.1:%%PORT%%; return 200; }")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: not title(pid), KILL_AFTER_S + 5)
    assert "ignores TERM" in gateway.error_log


def test_a_replica_holds_nothing_of_the_gateways(functions) -> None:
    gateway = functions()
    pid = gateway.process.pid
    socks = set(open_files(pid).values())
    for pid in [*ready(gateway, "py"), *ready(gateway, "cmd")]:
        own = {}
        for fd in fds(pid):
            with contextlib.suppress(OSError):
                own[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
        assert own[0] == "/dev/null"
        assert own[1].startswith("pipe:")
        assert own[2].startswith("pipe:")
        for fd, target in own.items():
            assert "memfd" not in target, own
            assert not (target.startswith("socket:") and target in socks), own
            if target.startswith("/") and fd > 2:
                assert not stat.S_ISREG(os.stat(target).st_mode), own
        assert "memfd" not in Path(f"/proc/{pid}/maps").read_text()
        text = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PYTEST" not in text


def fds(pid: int) -> list[int]:
    return [int(fd) for fd in os.listdir(f"/proc/{pid}/fd")]


def open_files(pid: int) -> dict[int, str]:
    """Descriptor → what it is; one that is closed while we look is left out."""
    found = {}
    for fd in fds(pid):
        with contextlib.suppress(FileNotFoundError):
            found[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def test_what_a_function_prints_stands_in_the_error_log(functions) -> None:
    gateway = functions(scale=1)
    gateway.get("/py/print?what=hello-log")
    wait_for(lambda: "[info]" in gateway.error_log and "printed hello-log" in gateway.error_log)
    assert "printed hello-log" in look(gateway)["py"]["replicas"][0]["log"]


def test_nothing_is_left_behind(functions) -> None:
    gateway = functions()
    pids = [*ready(gateway, "py"), *ready(gateway, "cmd")]
    folders = [it.split("/", 5)[5].rpartition("/")[0] for it in ready(gateway, "py").values()]
    assert all(map(os.path.isdir, folders))
    gateway.stop()
    wait_for(lambda: not any(map(title, pids)))
    assert not any(map(os.path.exists, folders))
