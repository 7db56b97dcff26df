"""A real headrace on free ports of 127.0.0.1, started from a conf and ended with its test."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ports import free_port
from rawclient import Answered, RawClient

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0


def run(*args: str, cwd: Path | None = None, timeout_s: float = 30) -> subprocess.CompletedProcess:
    """`headrace ARGS` to its end, output captured as text."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Gateway:
    """One headrace below `prefix` (its conf, logs and pid file live there).

    In the conf `%%PORT%%` … `%%PORT_7%%` become free ports, `%%DIR%%` the prefix. `http` is the
    inside of `http { }`; `main` stands before it; `text` replaces the whole conf instead.
    """

    def __init__(
        self, prefix: Path, http: str = "", main: str = "", text: str | None = None
    ) -> None:
        self.prefix = prefix
        self.ports = [free_port() for _ in range(8)]
        self.port = self.ports[0]
        self.conf = prefix / "headrace.conf"
        (prefix / "logs").mkdir(parents=True, exist_ok=True)
        self.write_conf(http, main, text)
        self.process: subprocess.Popen[bytes] | None = None

    def write_conf(self, http: str = "", main: str = "", text: str | None = None) -> None:
        """Replace the conf; the ports stay. A `reload` makes it take effect."""
        if text is None:
            user = "user root;\n" if os.geteuid() == 0 and "user " not in main else ""
            events = "" if "events" in main else "events { }\n"
            workers = "" if "worker_processes" in main else "worker_processes 1;\n"
            text = (
                "daemon off;\npid logs/headrace.pid;\nerror_log logs/error.log info;\n"
                f"{user}{workers}{main}\n{events}http {{\n{http}\n}}\n"
            )
        for number, port in enumerate(self.ports):
            text = text.replace(f"%%PORT_{number}%%", str(port))
        text = text.replace("%%PORT%%", str(self.port)).replace("%%DIR%%", str(self.prefix))
        self.conf.write_text(text)

    # -- life -----------------------------------------------------------------------------------
    def start(self) -> Gateway:
        """Start it and wait until it listens (the pid file says so)."""
        with open(self.prefix / "logs" / "stderr.log", "ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "-p", str(self.prefix), "-c", str(self.conf)],
                cwd=self.prefix,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=said,
                stderr=said,
            )
        pid_file = self.prefix / "logs" / "headrace.pid"
        limit = time.monotonic() + START_LIMIT_S
        while not pid_file.exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"headrace did not start\n{self.said}")
            time.sleep(0.005)
        return self

    def stop(self, order: int = signal.SIGTERM) -> int:
        """Ask it to leave, wait, return its exit code; what will not leave is killed and named."""
        process = self.process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(order)
        try:
            return process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            left = [process.pid, *descendants(process.pid)]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"headrace did not leave: {left}\n{self.said}") from None

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self, timeout_s: float = 10.0) -> None:
        """HUP, then wait until only new workers are left."""
        before = set(self.workers())
        self.signal(signal.SIGHUP)
        wait_for(lambda: (now := set(self.workers())) and not now & before, timeout_s)

    # -- looking --------------------------------------------------------------------------------
    @property
    def error_log(self) -> str:
        """The error log so far."""
        path = self.prefix / "logs" / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def said(self) -> str:
        """Everything it said: stderr and error log."""
        path = self.prefix / "logs" / "stderr.log"
        return (path.read_text(errors="replace") if path.exists() else "") + self.error_log

    def log(self, name: str = "access.log") -> list[str]:
        """The lines of a log below logs/."""
        path = self.prefix / "logs" / name
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def workers(self) -> list[int]:
        """The pids of the worker processes (those that are leaving included)."""
        assert self.process is not None
        pids = descendants(self.process.pid)
        return [pid for pid in pids if "worker process" in title(pid)]

    # -- asking ---------------------------------------------------------------------------------
    def client(self, port: int = 0, timeout_s: float = 10.0) -> RawClient:
        """A new raw connection to the first port, or to another."""
        return RawClient(port or self.port, timeout_s=timeout_s)

    def get(self, target: str = "/", port: int = 0, **headers: str) -> Answered:
        """One GET on a connection of its own."""
        with self.client(port) as client:
            return client.get(target, **headers)

    def ask(self, method: str, target: str = "/", body: bytes = b"", **headers: str) -> Answered:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(method, target, body, **headers)

    def raw(self, data: bytes | str, port: int = 0) -> bytes:
        """Send bytes, close the sending side, return all that comes back."""
        with self.client(port) as client:
            client.send(data).sock.shutdown(socket.SHUT_WR)
            return client.read_all()


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs, from /proc."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
                found += map(int, children)
                queue += map(int, children)
    return found


def internal_sockets(gateway: Gateway, *masters: int) -> list[Path]:
    """Where the workers of these masters listen for the controller; elsewhere when the prefix is
    too long for a socket's name."""
    found = list((gateway.prefix / "logs").glob("*-workers.sock"))
    for pid in masters:
        found += Path(tempfile.gettempdir()).glob(f"headrace-{pid}-*-workers.sock")
    return found


def controllers(*masters: int) -> list[int]:
    """The controllers among the children of these masters."""
    found = {pid for master in masters for pid in descendants(master)}
    return [pid for pid in found if title(pid) == "headrace: controller process"]


def title(pid: int) -> str:
    """The process title (argv) of a pid, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def wait_for(test, timeout_s: float = 20.0, what: str = "") -> None:
    """Return once `test()` is true; AssertionError after timeout_s."""
    limit = time.monotonic() + timeout_s
    while not test():
        assert time.monotonic() < limit, f"not within {timeout_s} s: {what or test}"
        time.sleep(0.01)


def workers_said(text: str) -> list[int]:
    """Pids of the workers that an error log says were started."""
    return [int(pid) for pid in re.findall(r"start worker process (\d+)", text)]
