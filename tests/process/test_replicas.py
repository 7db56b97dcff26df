"""Replicas on order: start, logs, death, limits, adoption by the next controller and the next
executable."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
from order_replicas import Controller

from proxy.process.replicas import Replicas


@pytest.fixture
def replicas():
    it = Replicas(print)
    yield it
    it.signal_own(signal.SIGKILL)
    for pid in it.pids_of_own():
        os.waitpid(pid, 0)
    it.close_in_child()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_start_and_death(replicas: Replicas):
    controller = Controller(replicas)
    code = "import os; print(os.environ, os.getcwd(), os.listdir('/proc/self/fd')); exit(3)"
    controller.order(op="start", id="a", argv=python(code), env={"NAME": "a"}, cwd="/")
    started = controller.hear("started")
    exited = controller.hear("exited")
    assert exited == {"op": "exited", "id": "a", "pid": started["pid"], "status": 3}
    said = os.read(controller.fds[0], 4096).decode()
    assert "'NAME': 'a'" in said
    assert "HOME" not in said
    assert said.rstrip().endswith("/ ['0', '1', '2', '3']")  # 3 is listdir's own


def test_what_cannot_start_is_told(replicas: Replicas):
    controller = Controller(replicas)
    controller.order(op="start", id="a", argv=["/no/such/thing"])
    assert "No such file" in controller.hear("failed")["error"]
    controller.order(op="start", id="b", argv=[])
    assert controller.hear("failed")["id"] == "b"
    controller.sock.send(b"not json\n")
    controller.order(op="start", id="c", argv=["true"], env={"PATH": os.environ["PATH"]})
    assert controller.hear("exited")["status"] == 0


@pytest.mark.parametrize("more, told", [
    ({"cwd": "/no/such/folder"}, "/bin/true: its folder: No such file"),
    ({"cwd": "/bin/true"}, "its folder: Not a directory"),
    ({"argv": ["/etc/passwd"]}, "/etc/passwd: Permission denied"),
    ({"argv": ["no-such-program"], "env": {"PATH": "/bin:/etc"}}, "no-such-program: No such file"),
    ({"argv": ["passwd"], "env": {"PATH": "/etc:/nowhere"}}, "passwd: Permission denied"),
    ({"argv": ["/bin/echo", "a\0b"]}, "a zero byte"),
    ({"env": {"A": "b\0c"}}, "a zero byte"),
    ({"env": {"A=B": "c"}}, "has no name"),
    ({"env": {"": "c"}}, "has no name"),
    ({"limits": {"none": 1}}, "none"),
    ({"uid": -1}, "negative"),
    ({"limits": {"nofile": 1 << 70}}, "too large"),
])  # fmt: skip
def test_why_it_cannot_start_is_told_in_words(replicas: Replicas, more, told):
    controller = Controller(replicas)
    before = sorted(os.listdir("/proc/self/fd"))
    controller.order(**{"op": "start", "id": "a", "argv": ["/bin/true"], **more})
    assert told in controller.hear("failed")["error"]
    assert sorted(os.listdir("/proc/self/fd")) == before  # nothing is left of it
    assert not replicas.pids_of_own()


def test_it_begins_with_signals_as_they_come(replicas: Replicas):
    """Ours are blocked, and one is ignored: none of that is inherited."""
    controller = Controller(replicas)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        controller.order(op="start", id="a", argv=["/bin/cat", "/proc/self/status"])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1})
    controller.hear("exited")
    lines = os.read(controller.fds[0], 9999).decode().splitlines()
    said = dict(line.split(":\t") for line in lines)
    glibc_s = 3 << 31  # 32 and 33 are not for anybody else to touch
    assert {int(said[it], 16) & ~glibc_s for it in ("SigBlk", "SigIgn", "SigCgt")} == {0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process to another user")
def test_another_user_has_nothing_of_ours(replicas: Replicas):
    controller = Controller(replicas)
    argv = ["/bin/sh", "-c", "id; ulimit -n; pwd; ps -o sid= -o pid= -p $$"]
    controller.order(op="start", id="a", argv=argv, uid=65534, gid=65534, cwd="/",
                     env={"PATH": os.environ["PATH"]}, limits={"nofile": 50}, nice=3)  # fmt: skip
    pid = controller.hear("started")["pid"]
    controller.hear("exited")
    who, files, folder, session = os.read(controller.fds[0], 999).decode().splitlines()
    assert who.split()[0].startswith("uid=65534(")
    assert who.split("groups=")[1].startswith("65534(")
    assert "," not in who
    assert (files, folder) == ("50", "/")
    assert session.split() == [str(pid), str(pid)]


def test_the_whole_group_is_signalled(replicas: Replicas):
    controller = Controller(replicas)
    controller.order(op="start", id="a", argv=["/bin/sh", "-c", "sleep 60 & wait"])
    controller.hear("started")
    controller.order(op="signal", id="a", signal=15)
    assert controller.hear("exited")["status"] == -15


def test_limits(replicas: Replicas):
    controller = Controller(replicas)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    controller.order(op="start", id="a", argv=python(code), limits={"nofile": 77})
    controller.hear("exited")
    assert os.read(controller.fds[0], 99) == b"(77, 77)\n"


def test_a_new_controller_is_told_what_runs(replicas: Replicas):
    first = Controller(replicas)
    first.order(op="start", id="a", argv=["/bin/sh", "-c", "echo hello; sleep 60"])
    started = first.hear("started")
    first.sock.close()
    second = Controller(replicas)
    running = second.hear("running")
    assert (running["pid"], running["id"]) == (started["pid"], "a")
    assert os.read(second.fds[0], 99) == b"hello\n"
    second.hear("listed")
    second.order(op="signal", id="a", signal=9)
    assert second.hear("exited")["status"] == -9


def test_nobody_is_started_between_two_executables(replicas: Replicas):
    """Of whom the new one is not told it would never hear."""
    first = Controller(replicas)
    first.order(op="start", id="a", argv=["/bin/sleep", "60"])
    first.hear("started")
    replicas.hold()
    replicas.lend()
    first.order(op="start", id="b", argv=["/bin/sleep", "60"])
    first.order(op="signal", id="a", signal=9)   # all else is obeyed
    assert first.hear("exited")["id"] == "a"
    assert not replicas.pids_of_own()
    replicas.obey_held()                         # the new one never came
    pid = first.hear("started")["pid"]
    replicas.end_unlent()                        # or came, and does not know this one
    assert first.hear("exited")["pid"] == pid


def test_a_new_executable_adopts_what_runs(replicas: Replicas):
    first = Controller(replicas)
    first.order(op="start", id="a", argv=["/bin/sleep", "60"])
    pid = first.hear("started")["pid"]
    heir = Replicas(print)
    # The heir lives in this process too: it gets descriptors of its own under other numbers.
    rows = json.loads(os.pread(replicas.lend()[0], 4096, 0))
    for row in rows:
        row["fds"] = [os.dup(fd) for fd in row["fds"]]
    table = os.memfd_create("table")
    os.write(table, json.dumps(rows).encode())
    heir.adopt(table)
    second = Controller(heir)
    assert second.hear("running")["pid"] == pid
    assert not heir.signal_own(0)  # another master lives
    heir.own_all()
    assert heir.pids_of_own() == [pid]
    os.kill(pid, signal.SIGKILL)
    assert first.hear("exited")["status"] == -9
    heir.on_watch()
    assert second.hear("exited")["status"] is None
