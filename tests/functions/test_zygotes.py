"""Zygotes in a running gateway: who has one, who comes from the generic one, who is exec'ed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import venv
from pathlib import Path

from gateway import Gateway, controllers, descendants, wait_for

HANDLER = """
import os
BORN = os.getpid()

def handle(event, context):
    return {"body": {"pid": os.getpid(), "imported": BORN}}
"""
HTTP = """
    access_log off;
    functions { zygotes %d; }
    function a { python app.py:handle; min_scale 1; }
    function b { python app.py:handle; min_scale 2; }
    function c { python app.py:handle; min_scale 1; env PYTHONDEVMODE 1; }
    function d { fork tr a-z A-Z; min_scale 1; }
    function e { openwhisk action.py; min_scale 1; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location /a { function_pass a; }
        location /b { function_pass b; }
        location /c { function_pass c; }
        location /d { function_pass d; }
        location /e { function_pass e; }
    }
"""


def start(headrace, most: int) -> Gateway:
    it = headrace(HTTP % most, start=False)
    (it.prefix / "app.py").write_text(HANDLER)
    (it.prefix / "action.py").write_text("def main(params): return {'body': 'acted'}\n")
    it.start()
    for name in "abcde":
        wait_for(lambda name=name: it.get(f"/{name}").status == 200, 20)
    return it


def who(it: Gateway, name: str) -> tuple[int, int]:
    found = json.loads(it.get(f"/{name}").body)
    return found["pid"], found["imported"]


def is_forked(it: Gateway, name: str) -> bool:
    """Did another process import the handler?"""
    pid, imported = who(it, name)
    return pid != imported


def zygotes(it: Gateway) -> list[int]:
    """The processes that were started as zygotes, spares and replicas of theirs left out."""
    found = []
    for pid in descendants(it.process.pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"zygote" in words and os.getsid(pid) == pid and not is_replica(pid):
                found.append(pid)
    return found


def is_replica(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("fn ")


def test_each_has_its_own_while_there_are_places(headrace) -> None:
    it = start(headrace, 32)
    assert all(is_forked(it, name) for name in "abc")
    assert who(it, "a")[1] != who(it, "b")[1]
    assert it.ask("POST", "/d", b"shout").body == b"SHOUT"
    assert it.get("/e").body == b"acted"


def test_beyond_the_bound_they_import_for_themselves(headrace) -> None:
    it = start(headrace, 1)
    assert sum(is_forked(it, name) for name in "abc") <= 1
    wait_for(lambda: len(zygotes(it)) == 2)  # the one, and the generic one


def test_none(headrace) -> None:
    it = start(headrace, 0)
    assert not any(is_forked(it, name) for name in "abc")
    assert zygotes(it) == []


def test_a_function_runs_under_the_interpreter_of_its_venv(headrace) -> None:
    it = headrace(
        """
        function v { python app.py:handle; venv own; min_scale 1; }
        server { listen 127.0.0.1:%%PORT%%; location / { function_pass v; } }
        """,
        start=False,
    )
    venv.create(it.prefix / "own", with_pip=False)
    text = "import sys\ndef handle(event, context): return sys.prefix\n"
    (it.prefix / "app.py").write_text(text)
    it.start()
    wait_for(lambda: it.get("/").body == str(it.prefix / "own").encode(), 20)


def test_a_zygote_that_dies_is_replaced_when_it_is_needed(headrace) -> None:
    it = start(headrace, 32)
    before, imported = who(it, "a")
    os.kill(imported, signal.SIGKILL)
    wait_for(lambda: imported not in zygotes(it))
    assert who(it, "a") == (before, imported)  # its replica lives on
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: it.get("/a").status == 200 and who(it, "a")[0] != before, 15)


def test_they_end_with_the_gateway_and_outlive_the_controller(headrace) -> None:
    it = start(headrace, 32)
    before = set(zygotes(it))
    assert before
    (controller,) = controllers(it.process.pid)
    os.kill(controller, signal.SIGKILL)
    wait_for(lambda: "running replicas adopted" in it.error_log, 10)
    assert set(zygotes(it)) == before
    everybody = descendants(it.process.pid)
    assert it.stop() == 0
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everybody))
    # the fixture would mind: this alert was asked for
    log = it.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("[alert]", "[asked]"))
