"""How long a request to a function that sleeps takes until its first byte, by kind of start.

    python bench/cold.py [COUNT]

One gateway, one client, one request at a time; the function is scaled to zero by the API before
each. `zygote`: forked from a process that has imported the handler; `generic`: the import comes
after the fork; `exec`: a new interpreter; `command`: python3 server.py, beside the bare start of
that process until it accepts a connection.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gateway import Gateway, wait_for  # noqa: E402

HANDLER = "def handle(event, context):\n    return 'x'\n"
SERVER = """
import http.server, os

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x")

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
ZYGOTE = "python app.py:handle;"
COMMAND = f"command {sys.executable} server.py;"
HTTP = """
    access_log off;
    functions { zygotes %(zygotes)d; store %%%%DIR%%%%/f.db; }
    openfaas_auth off;
    %(others)s
    function f { %(kind)s }
    server { listen 127.0.0.1:%%%%PORT%%%%; openfaas_api on; }
"""


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, float]:
    """(status, seconds until the first byte of the answer)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    began_s = time.perf_counter()
    connection.request("POST" if body is not None else "GET", path, body)
    answer = connection.getresponse()
    took_s = time.perf_counter() - began_s
    answer.read()
    connection.close()
    return answer.status, took_s


def sleep_now(gateway: Gateway) -> None:
    """Scale it to zero and wait until it is gone."""
    body = json.dumps({"serviceName": "f", "replicas": 0}).encode()
    assert ask(gateway.port, "/system/scale-function/f", body)[0] in (200, 202)

    def count() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        connection.request("GET", "/system/function/f")
        found = json.loads(connection.getresponse().read())
        connection.close()
        return found.get("availableReplicas", 0) + found.get("replicas", 0)

    wait_for(lambda: count() == 0, 20)
    time.sleep(0.05)


def starts(
    kind: str, zygotes: int, count: int, others: str = "", before: Callable[[], None] | None = None
) -> tuple[list[float], int]:
    """Cold starts of one function: (seconds each until the first byte, how many failed). `before`
    is called before each."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        gateway = Gateway(Path(folder), HTTP % {"kind": kind, "zygotes": zygotes, "others": others})
        (Path(folder) / "app.py").write_text(HANDLER)
        (Path(folder) / "server.py").write_text(SERVER)
        gateway.start()
        try:
            wait_for(lambda: ask(gateway.port, "/function/f")[0] == 200, 20)
            times = []
            failed = 0
            for _ in range(count):
                sleep_now(gateway)
                if before is not None:
                    before()
                status, took_s = ask(gateway.port, "/function/f")
                failed += status != 200
                times.append(took_s)
            return times, failed
        finally:
            gateway.stop()


def command_starts(count: int) -> tuple[list[float], list[float], int]:
    """python3 server.py by turns behind the gateway until its first byte, and alone from its start
    until it accepts: seconds each, and how many of the first failed."""
    alone: list[float] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        (Path(folder) / "server.py").write_text(SERVER)
        times, failed = starts(
            COMMAND, 32, count, before=lambda: alone.append(bare_start(f"{folder}/server.py"))
        )
    return times, alone, failed


def bare_start(file: str) -> float:
    """Seconds until it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    began_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, file], env={**os.environ, "PORT": str(port)})
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.0005)
    took_s = time.perf_counter() - began_s
    process.kill()
    process.wait()
    return took_s


def tell(name: str, times: list[float], failed: int = 0) -> None:
    cut = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    print(
        f"{name:<24} p50 {cut[49] * 1000:>7.1f} ms   p99 {cut[98] * 1000:>7.1f} ms   "
        f"{failed} of {len(times)} failed",
        flush=True,
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    kept = "function kept { python app.py:handle; prewarm 1; }"
    tell("zygote", *starts(ZYGOTE, 32, count))
    tell("generic", *starts(ZYGOTE, 1, count, kept))
    tell("exec", *starts(ZYGOTE, 0, count))
    times, alone, failed = command_starts(count)
    tell("bare python3 server.py", alone)
    tell("command", times, failed)


if __name__ == "__main__":
    main()
