"""Zygotes: what the master asks of them, what their replicas get, and what hostile ones can do."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from order_replicas import Controller

from proxy.process import _kernel
from proxy.process.replicas import Replicas

RUNTIME = Path(__file__).resolve().parents[2] / "proxy" / "functions" / "runtime.py"
APP = """
import os, random
born = os.getpid()
WORD = os.environ.get("WORD")

def handle(event, context):
    fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{fd}")}
    return {"body": {
        "pid": os.getpid(), "imported": born, "parent": os.getppid(), "session": os.getsid(0),
        "word": WORD, "env": dict(os.environ), "cwd": os.getcwd(), "fds": fds,
        "random": random.random(), "threads": len(os.listdir("/proc/self/task"))}}
"""


@pytest.fixture
def replicas():
    _kernel.become_subreaper()  # as the master is
    it = Replicas(print)
    yield it
    it.signal_own(signal.SIGKILL)
    for pid in it.pids_of_own():
        os.waitpid(pid, 0)
    it.close_in_child()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path / "app.py"


class Unix(http.client.HTTPConnection):
    def connect(self) -> None:
        limit = time.monotonic() + 10
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(10)
            try:
                return self.sock.connect(self.host)
            except OSError:
                self.sock.close()
                assert time.monotonic() < limit
                time.sleep(0.002)


def ask(path: Path) -> dict:
    connection = Unix(str(path))
    connection.request("GET", "/")
    data = json.loads(connection.getresponse().read())
    connection.close()
    return data


def hatch(controller: Controller, *words: object, id: str = "z", **more: object) -> dict:
    """Start a zygote; what it says of itself."""
    argv = [sys.executable, "-u", str(RUNTIME), "zygote", *map(str, words)]
    controller.order(op="start", id=id, argv=argv, zygote=True, **more)
    controller.hear("started")
    return controller.hear("zygote")


def test_replicas_are_forked_from_what_was_imported(replicas: Replicas, app: Path):
    controller = Controller(replicas)
    said = hatch(controller, app, "handle", env={"WORD": "w"})
    assert said == {"op": "zygote", "id": "z", "state": "ready", "why": ""}
    found = []
    for number in range(3):
        path = app.parent / f"s{number}"
        controller.order(op="fork", id=f"r{number}", zygote="z", cwd="/", env={"SOCKET": str(path)})
        pid = controller.hear("started")["pid"]
        it = ask(path)
        assert (it["pid"], it["parent"], it["session"]) == (pid, os.getpid(), pid)
        assert (it["word"], it["cwd"], it["env"]["SOCKET"]) == ("w", "/", str(path))
        found.append(it)
    assert len({it["imported"] for it in found}) == 1
    assert len({it["random"] for it in found}) == 3
    os.kill(found[0]["pid"], signal.SIGKILL)
    exited = controller.hear("exited")
    assert (exited["id"], exited["status"]) == ("r0", -9)
    controller.order(op="signal", id="r1", signal=15)
    exited = controller.hear("exited")
    assert (exited["id"], exited["status"]) == ("r1", 0)


def test_a_replica_has_nothing_of_the_gateway(replicas: Replicas, app: Path):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    memory = os.memfd_create("zone", 0)
    controller = Controller(replicas)
    hatch(controller, app, "handle")
    hatch(controller, id="generic")
    for zygote, words in (("z", []), ("generic", [str(app), "handle"])):
        path = app.parent / zygote
        controller.order(op="fork", id=f"r{zygote}", zygote=zygote, words=words,
                         env={"SOCKET": str(path)})  # fmt: skip
        controller.hear("started")
        fds = ask(path)["fds"]
        assert fds.pop("0") == "/dev/null"
        assert fds.pop("1")[:4] == fds.pop("2")[:4] == "pipe"
        kinds = sorted(it.partition(":")[0] for it in fds.values())
        # the loop's own epoll and wake-up pair, its listener, this connection
        assert kinds == ["anon_inode", "socket", "socket", "socket", "socket"], fds
        assert f"socket:[{os.fstat(listener.fileno()).st_ino}]" not in fds.values()
    listener.close()
    os.close(memory)


@pytest.mark.parametrize(
    ("text", "state", "why"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True)"
         ".start()", "unfit", "its import starts 1 thread"),
        ("import socket\nkept = socket.socket()", "unfit", "its import opens a socket"),
        ("import subprocess\nkept = subprocess.Popen(['sleep', '60'])", "unfit",
         "its import starts a process"),
        ("import no_such_thing", "failed", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def handle(:", "failed", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "failed", "SystemExit: 3"),
        ("other = 1", "failed", "AttributeError: module 'app' has no attribute 'handle'"),
    ],
)  # fmt: skip
def test_an_import_that_cannot_be_forked(
    replicas: Replicas, app: Path, text: str, state: str, why: str
):
    app.write_text(text + (APP if state == "unfit" else ""))
    controller = Controller(replicas)
    said = hatch(controller, app, "handle")
    assert (said["state"], said["why"]) == (state, why)
    controller.hear("exited")


def test_forks_of_a_zygote_that_ends_fail(replicas: Replicas, app: Path):
    controller = Controller(replicas)
    hatch(controller, app, "handle")
    os.killpg(replicas._by_id["z"].pid, signal.SIGSTOP)
    controller.order(op="fork", id="a", zygote="z", env={"SOCKET": "/x"})
    controller.order(op="fork", id="b", zygote="z", env={"SOCKET": "/x"})
    controller.order(op="fork", id="c", zygote="none")
    assert controller.hear("failed")["id"] == "c"
    controller.order(op="signal", id="a", signal=15)
    assert controller.hear("failed")["id"] == "a"
    controller.order(op="signal", id="z", signal=9)
    assert controller.hear("failed") == {"op": "failed", "id": "b", "error": "its zygote ended"}
    assert controller.hear("exited")["id"] == "z"


def test_who_was_born_of_a_zygote_that_ends_is_not_lost(replicas: Replicas, app: Path):
    controller = Controller(replicas)
    hatch(controller, app, "handle")
    path = app.parent / "s"
    controller.order(op="fork", id="r", zygote="z", env={"SOCKET": str(path)})
    replicas.on_channel()
    pid = ask(path)["pid"]  # it said so, and nobody listened yet
    zygote = replicas._by_id["z"].pid
    os.kill(zygote, signal.SIGKILL)
    replicas.on_exit(*os.waitpid(zygote, 0))
    started = controller.hear("started")
    assert (started["id"], started["pid"]) == ("r", pid)
    controller.order(op="signal", id="r", signal=9)
    while controller.hear("exited")["id"] != "r":
        pass


def test_who_cannot_say_that_it_was_born_ends(replicas: Replicas, app: Path):
    controller = Controller(replicas)
    hatch(controller, app, "handle")
    zygote = replicas._by_id["z"]
    zygote.hush()
    controller.order(op="fork", id="r", zygote="z", env={"SOCKET": str(app.parent / "s")})
    replicas.on_channel()
    printed = zygote.unborn["r"][0][0]
    assert select.select([printed], [], [], 10)[0]
    assert os.read(printed, 99) == b""  # nobody holds the other end any more
    controller.order(op="signal", id="z", signal=9)
    assert controller.hear("failed")["id"] == "r"


def test_what_was_called_back_is_not_born(replicas: Replicas, app: Path):
    controller = Controller(replicas)
    hatch(controller, app, "handle")
    pid = replicas._by_id["z"].pid
    os.killpg(pid, signal.SIGSTOP)
    for id in "ab":
        controller.order(op="fork", id=id, zygote="z", env={"SOCKET": f"{app.parent}/{id}"})
    controller.order(op="signal", id="a", signal=15)
    controller.hear("failed")
    for _ in range(5):  # one that is forked meanwhile may miss the first
        os.killpg(pid, signal.SIGCONT)
        time.sleep(0.05)
    assert controller.hear("started")["id"] == "b"
    assert set(replicas._by_id) == {"z", "b"}


LIES = [
    b"x", b"[]", b'{"state": "born", "id": "a"}', b'{"state": "ready"}', b"[" * 2000,
    b'{"state": "stillborn", "id": "none"}',
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_zygote_that_lies_is_killed(replicas: Replicas, app: Path, lie: bytes):
    """The file of the handler may find descriptor 3 while it is imported."""
    app.write_text(f"import os\nos.write(3, {lie!r})\n{APP}")
    controller = Controller(replicas)
    argv = [sys.executable, str(RUNTIME), "zygote", str(app), "handle"]
    controller.order(op="start", id="z", argv=argv, zygote=True)
    controller.hear("started")
    assert controller.hear("exited")["status"] in (-9, 0)


def test_a_new_controller_hears_of_zygotes_and_a_new_executable_does_not(
    replicas: Replicas, app: Path
):
    hatch(Controller(replicas), app, "handle")
    second = Controller(replicas)
    assert second.hear("running")["id"] == "z"
    assert second.hear("zygote")["state"] == "ready"
    second.hear("listed")
    (table,) = replicas.lend()  # no pipes
    assert json.loads(os.pread(table, 4096, 0)) == []
