"""Real masters with a stand-in for the request path: births, signals, reloads, deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ports import free_port

HERE = Path(__file__).resolve().parent
LIMIT_S = 20.0


def until(ask, limit_s: float = LIMIT_S):
    """What `ask` gives once it is true."""
    end = time.monotonic() + limit_s
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < end, f"never came true: {ask}"
        time.sleep(0.02)


def children_of(pid: int) -> dict[int, str]:
    found = {}
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").decode()
                found[int(child)] = title
    return found


class Running:
    """One headrace below `prefix`."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.port = free_port()
        self.other = free_port()
        (prefix / "logs").mkdir()
        self.process: subprocess.Popen | None = None
        self.masters: set[int] = set()

    def conf(self, main: str = "", http: str = "", daemon: str = "off") -> Running:
        user = "user root;" if os.geteuid() == 0 and "user " not in main else ""
        if not http:
            http = f"server {{ listen 127.0.0.1:{self.port}; }}"
        self.path.write_text(
            f"daemon {daemon}; pid logs/h.pid; error_log logs/error.log debug; {user} {main}\n"
            f"events {{ }}\nhttp {{ {http} }}\n"
        )
        return self

    @property
    def path(self) -> Path:
        return self.prefix / "h.conf"

    def command(self, *words: str) -> list[str]:
        where = ["-p", str(self.prefix), "-c", "h.conf", "-e", "logs/error.log"]
        return [sys.executable, str(HERE / "launch.py"), *where, *words]

    def ask(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=30, check=False
        )

    def start(self) -> Running:
        self.process = subprocess.Popen(self.command())
        until(lambda: (self.prefix / "logs/h.pid").exists())
        self.until_ready()
        return self

    @property
    def pid(self) -> int:
        """The master's by its file; 0 in the moment where two masters change places."""
        try:
            pid = int((self.prefix / "logs/h.pid").read_text())
        except FileNotFoundError:
            return 0
        self.masters.add(pid)
        return pid

    def workers(self, pid: int = 0) -> list[int]:
        found = children_of(pid or self.pid).items()
        return [pid for pid, title in found if title == "headrace: worker process"]

    def until_ready(self) -> None:
        until(self.get)

    def get(self, path: str = "/", port: int = 0) -> str:
        """The stand-in's answer, or nothing when there was none."""
        try:
            return self.get_or_raise(path, port)
        except OSError:
            return ""

    def get_or_raise(self, path: str = "/", port: int = 0) -> str:
        with socket.create_connection(("127.0.0.1", port or self.port), 10) as sock:
            sock.settimeout(10)
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            data = b""
            while piece := sock.recv(4096):
                data += piece
        if not data:
            raise ConnectionResetError("closed without an answer")
        return data.partition(b"\r\n\r\n")[2].decode()

    def is_refused(self) -> bool:
        try:
            self.get_or_raise()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    @property
    def log(self) -> str:
        return (self.prefix / "logs/error.log").read_text()

    def signal(self, number: int, pid: int = 0) -> None:
        os.kill(pid or self.pid, number)

    def end(self) -> None:
        """Whatever this test started, by pid."""
        pids = set(self.masters)
        for name in ("h.pid", "h.pid.oldbin"):
            with contextlib.suppress(OSError, ValueError):
                pids.add(int((self.prefix / "logs" / name).read_text()))
        if self.process is not None and self.process.poll() is None:
            pids.add(self.process.pid)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        if self.process is not None:
            self.process.wait(LIMIT_S)
        until(lambda: not any(is_headrace(pid) for pid in pids))


def is_headrace(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"headrace" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Load:
    """Clients that ask all the time; `failures` are what a user would have seen."""

    def __init__(self, running: Running, clients: int = 4) -> None:
        self.running = running
        self.answers = 0
        self.failures: list[str] = []
        self.is_over = False
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]

    def ask(self) -> None:
        while not self.is_over:
            try:
                self.running.get_or_raise()
                self.answers += 1
            except OSError as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        for thread in self.threads:
            thread.join()


@pytest.fixture
def running(tmp_path: Path):
    it = Running(tmp_path)
    yield it
    it.end()


def test_start_and_quit(running: Running):
    running.conf("worker_processes 2;").start()
    assert running.pid == running.process.pid
    titles = sorted(until(lambda: len(t := children_of(running.pid).values()) == 3 and list(t)))
    assert titles == ["headrace: controller process"] + ["headrace: worker process"] * 2
    master = Path(f"/proc/{running.pid}/cmdline").read_bytes().rstrip(b"\0")
    assert master == b"headrace: master process"
    running.signal(signal.SIGQUIT)
    assert running.process.wait(LIMIT_S) == 0
    assert not (running.prefix / "logs/h.pid").exists()
    assert running.log.count("exited with code 0") == 3
    assert "[alert]" not in running.log


def test_quit_finishes_what_runs_and_refuses_what_comes(running: Running):
    running.conf().start()
    answers = []
    client = threading.Thread(target=lambda: answers.append(running.get("/slow")))
    client.start()
    until((running.prefix / "logs/asked-slow").exists)
    running.signal(signal.SIGQUIT)
    until(running.is_refused)
    client.join()
    assert answers[0]
    assert running.process.wait(LIMIT_S) == 0


def test_term_does_not_wait(running: Running):
    running.conf().start()
    client = threading.Thread(target=running.get, args=("/hang",))
    client.start()
    until((running.prefix / "logs/asked-hang").exists)
    running.signal(signal.SIGTERM)
    assert running.process.wait(LIMIT_S) == 0
    client.join()


def test_shutdown_timeout_ends_the_old_worker(running: Running):
    running.conf("worker_shutdown_timeout 100ms;").start()
    client = threading.Thread(target=running.get, args=("/hang",))
    client.start()
    until((running.prefix / "logs/asked-hang").exists)
    running.signal(signal.SIGHUP)
    until(lambda: "worker process" in running.log and "exited with code 0" in running.log)
    client.join()


def test_reload_under_load_fails_nobody(running: Running):
    running.conf("worker_processes 2;").start()
    with Load(running) as load:
        for number in range(2, 6):
            running.signal(signal.SIGHUP)
            until(lambda number=number: running.get().split()[1:2] == [str(number)])
    assert load.answers > 20
    assert not load.failures
    assert "[alert]" not in running.log


def test_from_four_workers_to_one_resets_nobody(running: Running):
    running.conf("worker_processes 4;").start()
    until(lambda: len(running.workers()) == 4)
    with Load(running) as load:
        for count in (1, 3, 1):
            running.conf(f"worker_processes {count};")
            running.signal(signal.SIGHUP)
            until(lambda count=count: len(running.workers()) == count)
            time.sleep(0.7)
    assert load.answers > 20
    assert not load.failures


def test_a_bad_conf_leaves_the_old_one_serving(running: Running):
    running.conf().start()
    before = running.workers()
    running.path.write_text("daemon off;\nevents { }\nhttp { nonsense; }\n")
    running.signal(signal.SIGHUP)
    until(lambda: f'unknown directive "nonsense" in {running.path}:3' in running.log)
    assert running.workers() == before
    assert running.get().split()[1] == "1"


def test_an_address_goes_and_another_comes(running: Running):
    running.conf().start()
    running.conf(http=f"server {{ listen 127.0.0.1:{running.other}; }}")
    running.signal(signal.SIGHUP)
    until(lambda: running.get(port=running.other))
    until(running.is_refused)


def test_an_address_that_is_taken_leaves_the_old_conf_serving(running: Running):
    running.conf().start()
    with socket.create_server(("127.0.0.1", running.other)):
        running.conf(http=f"server {{ listen 127.0.0.1:{running.other}; }}")
        running.signal(signal.SIGHUP)
        until(lambda: "still could not bind()" in running.log)
    assert running.get().split()[1] == "1"


def test_a_killed_worker_is_born_again(running: Running):
    running.conf().start()
    (worker,) = running.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: running.workers() not in ([], [worker]))
    assert running.get()
    assert f"worker process {worker} exited on signal 9" in running.log


def test_who_waits_while_the_worker_is_killed_is_answered_by_the_next(running: Running):
    running.conf().start()
    (worker,) = running.workers()
    os.kill(worker, signal.SIGSTOP)
    answers = []
    client = threading.Thread(target=lambda: answers.append(running.get()))
    client.start()
    time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    client.join()
    assert answers[0]


def test_a_killed_controller_is_born_again(running: Running):
    running.conf().start()

    def controllers() -> list[int]:
        titles = children_of(running.pid).items()
        return [pid for pid, title in titles if title == "headrace: controller process"]

    (controller,) = until(controllers)
    os.kill(controller, signal.SIGKILL)
    until(lambda: controllers() not in ([], [controller]))


def test_a_worker_asked_to_leave_gets_a_successor(running: Running):
    running.conf().start()
    (worker,) = running.workers()
    os.kill(worker, signal.SIGQUIT)
    until(lambda: f"worker process {worker} exited with code 0" in running.log)
    until(running.get)


def test_logs_are_reopened(running: Running):
    running.conf().start()
    log = running.prefix / "logs/error.log"
    log.rename(running.prefix / "logs/old.log")
    running.signal(signal.SIGUSR1)
    until(log.exists)
    running.signal(signal.SIGHUP)
    until(lambda: "reconfiguring" in log.read_text())


def test_upgrade_and_back_out_and_upgrade(running: Running):
    running.conf("worker_processes 2;", daemon="on").start()
    old = running.pid
    old_file = running.prefix / "logs/h.pid.oldbin"
    with Load(running) as load:
        running.signal(signal.SIGUSR2)
        new = until(
            lambda: (running.prefix / "logs/h.pid").exists() and running.pid != old and running.pid
        )
        assert int(old_file.read_text()) == old
        until(lambda: len(running.workers(new)) == 2)
        running.signal(signal.SIGWINCH, old)
        until(lambda: not running.workers(old))
        # Back out: the old workers return, the new master leaves.
        running.signal(signal.SIGHUP, old)
        until(lambda: len(running.workers(old)) == 2)
        time.sleep(0.3)
        running.signal(signal.SIGQUIT, new)
        until(lambda: not old_file.exists() and running.pid == old)
        # And over for good.
        running.signal(signal.SIGUSR2, old)
        newer = until(
            lambda: (running.prefix / "logs/h.pid").exists() and running.pid != old and running.pid
        )
        until(lambda: len(running.workers(newer)) == 2)
        time.sleep(0.3)
        running.signal(signal.SIGQUIT, old)
        until(lambda: not is_headrace(old))
        time.sleep(0.2)
    assert running.pid == newer
    assert load.answers > 20
    assert not load.failures


def test_daemon_listens_before_its_parent_leaves(running: Running):
    running.conf(daemon="on")
    assert running.ask().returncode == 0
    until(lambda: (running.prefix / "logs/h.pid").exists())
    assert running.get()
    stat = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[3]) == running.pid  # a session of its own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_give_up_root(running: Running):
    running.conf("user nobody nogroup;").start()
    assert running.get().split()[2] != "0"


def test_without_a_master(running: Running):
    running.conf("master_process off;").start()
    assert int(running.get().split()[0]) == running.process.pid
    assert not children_of(running.process.pid)
    running.signal(signal.SIGHUP)
    until(lambda: "gracefully shutting down" in running.log)
    until(running.get)
    assert running.pid == running.process.pid
    running.signal(signal.SIGQUIT)
    assert running.process.wait(LIMIT_S) == 0


def test_a_unix_socket_is_shared_and_removed(running: Running):
    path = running.prefix / "u.sock"
    running.conf(
        "worker_processes 2;",
        http=f"server {{ listen unix:{path}; listen 127.0.0.1:{running.port}; }}",
    ).start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    running.signal(signal.SIGQUIT)
    running.process.wait(LIMIT_S)
    assert not path.exists()
