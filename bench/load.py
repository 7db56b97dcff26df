"""Drives load at a port: wrk and h2load for numbers, idle connections for memory."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

LOAD_CORE = "1"
SCRIPT = Path(__file__).parent / "load.lua"


class LoadError(Exception):
    """The load could not be applied, or it was answered with errors."""


def wrk(url: str, connections: int, seconds: float, routes: int = 0) -> dict[str, int]:
    """One run of wrk, one thread, keep-alive: its sums. LoadError when requests failed."""
    done = subprocess.run(
        [
            "taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}",
            f"-d{max(1, round(seconds))}s", "--timeout", "20s", "--latency",
            "-s", str(SCRIPT), url, "--", str(routes),
        ],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise LoadError(f"wrk {url}: {done.stdout[-300:]}{done.stderr[-300:]}")
    sums = json.loads(lines[-1])
    failed = sums["status"] + sums["connect"] + sums["timeout"]
    if failed > sums["requests"] // 1000:
        raise LoadError(f"wrk {url}: {failed} of {sums['requests']} requests failed: {sums}")
    return sums


def h2load(
    url: str, connections: int, seconds: float, streams: int = 32, grpc: Path | None = None
) -> dict[str, int]:
    """The same by HTTP/2, so many streams at once on each connection; grpc: as calls whose message
    is that file."""
    call = ["-d", str(grpc), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run(
        [
            "taskset", "-c", LOAD_CORE, "h2load", "-t1", f"-c{connections}", f"-m{streams}",
            f"-D{max(1, round(seconds))}", *(call if grpc else ()), url,
        ],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    size = re.search(r"traffic: .*?\((\d+)\) total.*\((\d+)\) data", done.stdout)
    if done.returncode or found is None or size is None:
        raise LoadError(f"h2load {url}: {done.stdout[-300:]}{done.stderr[-300:]}")
    good, failed, errored = map(int, found.groups())
    # nginx 1.22 answers one or two calls in a hundred with 502 when its upstream connections turn
    if failed + errored > good // (50 if grpc else 1000):
        raise LoadError(f"h2load {url}: {found[0]}")
    return {"requests": good, "bytes": int(size[1]), "data": int(size[2])}


def ask(sock: socket.socket, path: str = "/") -> bytes:
    """One small GET on an open connection; the answer's bytes. OSError when it is cut."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise OSError("closed before an answer")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        piece = sock.recv(65536)
        if not piece:
            raise OSError("closed within an answer")
        body += piece
    return head + b"\r\n\r\n" + body


def idle_connections(port: int, count: int) -> list[socket.socket]:
    """Open connections, each of which has had one answer and waits for its next request."""
    sockets = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sockets.append(sock)
        ask(sock)
    return sockets
