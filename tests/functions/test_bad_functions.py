"""Functions that misbehave: each a clear error, the gateway stays, the others do not notice."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, wait_for

GOOD = "def handle(event, context): return 'good'\n"
BAD = {
    "missing.py": "import no_such_module\n",
    "exits.py": "import sys\nprint('before the end')\nsys.exit(3)\n",
    "garbage.py": """
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind(os.environ["SOCKET"])
s.listen(9)
while True:
    c, _ = s.accept()
    c.sendall(b"\\0\\xff garbage\\r\\n\\r\\n" * 99)
    c.close()
""",
    "prints.py": """
import os, sys
print("\\0\\x1b[31m\\xff" + "x" * 5000)
while True:
    os.write(1, b"line\\n" * 1000)
""",
    "eater.py": """
import time

def handle(event, context):
    if "eat" in event.query:
        kept = [bytearray(b"x" * (8 << 20)) for _ in range(40)]
        time.sleep(30)
    return "fed"
""",
    "threads.py": """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

def handle(event, context): return "threaded"
""",
    "stubborn.py": """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import time, os, socket
s = socket.socket(socket.AF_UNIX)
s.bind(os.environ["SOCKET"])
s.listen(9)
time.sleep(600)
""",
}
HTTP = """
    access_log off;
    function good { python good.py:handle; min_scale 1; }
    function bad { %s min_scale 1; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location /good { function_pass good; }
        location /bad { function_pass bad; }
    }
"""


@pytest.fixture
def beside_good(headrace) -> Iterator:
    """A maker of gateways with a good function and a bad one; the good one works to the end."""
    made: list[Gateway] = []

    def make(bad: str) -> Gateway:
        it = headrace(HTTP % bad, start=False)
        (it.prefix / "good.py").write_text(GOOD)
        for name, text in BAD.items():
            (it.prefix / name).write_text(text)
        it.start()
        made.append(it)
        wait_for(lambda: it.get("/good").body == b"good", 15)
        return it

    yield make
    for it in made:
        assert it.process.poll() is not None or it.get("/good").body == b"good"


def command(file: str) -> str:
    return f"command {sys.executable} {file};"


def test_a_handler_that_does_not_import(beside_good) -> None:
    it = beside_good("python missing.py:handle;")
    why = "ModuleNotFoundError: No module named 'no_such_module'"
    wait_for(lambda: f"did not start: {why}" in it.error_log, 10)
    assert it.get("/bad").status in (502, 503)


def test_a_program_that_exits_at_once(beside_good) -> None:
    it = beside_good(command("exits.py"))
    wait_for(lambda: "exited with code 3, last words: before the end" in it.error_log, 10)
    assert it.get("/bad").status in (502, 503)


def test_a_program_that_never_answers_its_check(beside_good) -> None:
    it = beside_good("command sleep 600; start_timeout 300ms;")
    wait_for(lambda: "was not ready within 300 ms" in it.error_log, 10)
    assert it.get("/bad").status in (502, 503)


def test_a_program_that_answers_garbage(beside_good) -> None:
    it = beside_good(command("garbage.py"))
    wait_for(lambda: it.get("/bad").status == 502, 10)
    checked = beside_good(command("garbage.py") + " ready /; start_timeout 300ms;")
    wait_for(lambda: "was not ready within 300 ms" in checked.error_log, 10)


def test_a_program_that_prints_without_end(beside_good) -> None:
    it = beside_good(command("prints.py"))
    wait_for(lambda: "lines left out" in it.error_log, 20)
    assert "\0" not in it.error_log
    assert "\x1b" not in it.error_log
    assert max(map(len, it.error_log.splitlines())) < 2500


def test_a_memory_eater_is_ended_alone(beside_good) -> None:
    it = beside_good("python eater.py:handle; limits memory=150m;")
    wait_for(lambda: it.get("/bad").body == b"fed", 10)
    assert it.get("/bad?eat").status in (500, 502)
    wait_for(lambda: it.get("/bad").body == b"fed", 15)  # another has taken its place
    killed = "of memory, its limit is 153600k"
    assert killed in it.error_log or "MemoryError" in it.error_log or "signal 9" in it.error_log


BOMB = """
import http.server, os, time

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while "fork" in self.path:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"calm")

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="needs a Python for everybody")
def test_a_fork_bomb_is_held_and_ended(beside_good) -> None:
    with tempfile.TemporaryDirectory(prefix="hr", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "bomb.py").write_text(BOMB)
        it = beside_good(
            f"command /usr/bin/python3 {folder}/bomb.py; working_directory {folder}; "
            "limits nproc=40; user nobody;"
        )
        wait_for(lambda: it.get("/bad").body == b"calm", 20)
        assert it.get("/bad?fork").status == 502
        wait_for(lambda: "processes and threads, its limit is 40" in it.error_log, 10)
        wait_for(lambda: it.get("/bad").body == b"calm", 20)
        wait_for(lambda: count_in(folder) == 1, 10)


def count_in(folder: str) -> int:
    """How many processes work in a folder."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/{name}/cwd") == folder
    return count


def test_an_import_that_starts_a_thread_is_served_by_exec(beside_good) -> None:
    it = beside_good("python threads.py:handle;")
    wait_for(lambda: it.get("/bad").body == b"threaded", 15)
    assert "its import starts 1 thread: its replicas are not forked but exec'ed" in it.error_log


def test_who_ignores_term_is_killed_when_the_gateway_ends(beside_good) -> None:
    it = beside_good(command("stubborn.py"))
    wait_for(lambda: "bad.openfaas-fn/v1/" in it.error_log and " ready (" in it.error_log, 10)
    began = time.monotonic()
    assert it.get("/good").body == b"good"
    assert it.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
