"""The runtime that serves a Python function: what handlers get, what their answers become.

Each test asks a real process over its Unix socket, under this Python and under the oldest that
the runtime promises to run on, where there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import RUNTIME, Running

HANDLERS = '''
import asyncio, os, sys, threading
sys.dont_write_bytecode = True

def handle(event, context):
    return {"statusCode": 201, "headers": {"X-A": "1"}, "body": {
        "method": event.method, "path": event.path, "query": event.query,
        "body": event.body.decode(), "header": event.headers.get("x-one"),
        "function": context.function_name, "modules": [it for it in sys.modules if "prox" in it]}}

def text(req):
    return req.upper()

def pair(event, context):
    return "made", 202, {"Content-Type": "text/x"}

def nothing(event, context):
    return None

def raw(event, context):
    return event.body[::-1]

def fails(event, context):
    raise ValueError("on purpose")

async def slow(event, context):
    await asyncio.sleep(1)
    return "slept"

def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Path", environ["PATH_INFO"]), ("X-Q", environ["QUERY_STRING"])])
    return [environ["REQUEST_METHOD"].encode(), b" ", body]

class WsgiApp:
    def __call__(self, environ, start_response):
        start_response("404 Not Found", [("Content-Length", "4")])
        return [b"none"]

wsgi_app = WsgiApp()
started = []

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            started.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"x-path", scope["path"].encode()),
                            (b"x-up", repr(started).encode())]})
    await send({"type": "http.response.body", "body": body[:3], "more_body": True})
    await send({"type": "http.response.body", "body": body[3:]})
'''


def pythons() -> list[str]:
    found = [sys.executable]
    for root in (Path("/usr/bin"), *Path.home().glob(".pyenv/versions/3.9*/bin")):
        with contextlib.suppress(OSError):
            if (root / "python3.9").exists():
                found.append(str(root / "python3.9"))
    return found


@pytest.fixture(params=pythons(), ids=lambda it: "oldest" if it != sys.executable else "this")
def python(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def running(python: str, tmp_path: Path) -> Iterator:
    made: list[Running] = []

    def make(name: str, **env: str) -> Running:
        (tmp_path / "app.py").write_text(HANDLERS)
        made.append(Running(python, str(tmp_path / "app.py"), name, **env))
        return made[-1]

    yield make
    for it in made:
        it.close()


def test_an_event_and_its_answer(running) -> None:
    status, fields, body = running("handle").ask("/a%20b?x=1&x=2&y=", b"text", X_One="1")
    assert (status, fields["x-a"], fields["content-type"]) == (201, "1", "application/json")
    assert json.loads(body) == {
        "method": "POST", "path": "/a b", "query": {"x": "1", "y": ""}, "body": "text",
        "header": "1", "function": "f", "modules": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "status", "kind", "body"),
    [
        ("text", 200, "text/plain; charset=utf-8", b"ABC"),
        ("pair", 202, "text/x", b"made"),
        ("nothing", 200, None, b""),
        ("raw", 200, "application/octet-stream", b"cba"),
        ("fails", 500, "text/plain", b"the function failed\n"),
        ("slow", 200, "text/plain; charset=utf-8", b"slept"),
    ],
)
def test_what_handlers_return(running, name: str, status: int, kind: str, body: bytes) -> None:
    found = running(name).ask(body=b"abc")
    assert (found[0], found[1].get("content-type"), found[2]) == (status, kind, body)


def test_wsgi(running) -> None:
    status, fields, body = running("wsgi").ask("/p?q=1", b"abc")
    assert (status, fields["x-path"], fields["x-q"]) == (200, "/p", "q=1")
    assert body == b"4\r\nPOST\r\n1\r\n \r\n3\r\nabc\r\n0\r\n\r\n"
    assert running("wsgi_app").ask("/")[::2] == (404, b"none")


def test_asgi_streams_and_lives(running) -> None:
    app = running("asgi")
    status, fields, body = app.ask("/p", b"abcdef")
    assert (status, fields["x-path"]) == (200, "/p")
    assert fields["x-up"] == "['lifespan.startup']"
    assert body == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    assert app.close() == 0


CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
)


def test_every_split_of_a_chunked_body(running) -> None:
    app = running("raw")
    for cut in range(len(CHUNKED)):
        assert app.raw(CHUNKED, cut).endswith(b"\r\n\r\nedcba"), cut


def test_keep_alive_pipelining_head_and_continue(running) -> None:
    app = running("raw")
    with app.connect() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
            b"HEAD / HTTP/1.1\r\n\r\n"
            b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\ncd"
        )
        said = b""
        while piece := sock.recv(65536):
            said += piece
    parts = said.split(b"HTTP/1.1 ")
    assert [it[:3] for it in parts[1:]] == [b"200", b"200", b"100", b"200"]
    assert parts[1].endswith(b"ba")
    assert parts[2].endswith(b"\r\n\r\n")
    assert parts[4].endswith(b"dc")


BAD = [
    (b"GARBAGE\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", 413),
]


def test_bad_input_is_refused_and_the_next_is_served(running) -> None:
    app = running("raw", MAX_BODY_BYTES="50")
    for data, status in BAD:
        assert app.raw(data).startswith(b"HTTP/1.1 %d " % status), data
    with app.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b""
    assert app.ask(body=b"ok")[2] == b"ko"


def test_requests_at_once(running) -> None:
    app = running("slow")
    begun = time.monotonic()
    socks = [app.connect() for _ in range(20)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    for sock in socks:
        assert sock.recv(4096).endswith(b"slept")
        sock.close()
    assert time.monotonic() - begun < 20 * 1


def test_term_lets_the_answer_finish(running) -> None:
    app = running("slow")
    with app.connect() as sock, app.connect() as idle:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.05)
        app.process.terminate()
        assert sock.recv(4096).endswith(b"slept")
        assert idle.recv(10) == b""
    assert app.process.wait(10) == 0
    assert not os.path.exists(app.path)


def test_a_handler_that_does_not_import(python: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import nothing_of_that_name\n")
    done = subprocess.run(
        [python, str(RUNTIME), str(tmp_path / "app.py"), "handle"],
        env={"SOCKET": str(tmp_path / "s")}, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"nothing_of_that_name" in done.stderr
