"""WebSockets of an ASGI application: RFC 6455 on the wire, ASGI's messages for the application."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import Running
from test_runtime import python as python
from websocket import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    TextMessage,
    WebSocketClient,
    frame,
)  # fmt: skip

APP = '''
import asyncio, json

async def echo(scope, receive, send):
    if scope["type"] != "websocket":
        body = scope["type"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    assert (await receive())["type"] == "websocket.connect"
    path = scope["path"]
    if path == "/refused":
        await send({"type": "websocket.close", "code": 3000})
        return
    if path == "/denied":
        await send({"type": "websocket.http.response.start", "status": 429,
                    "headers": [(b"retry-after", b"3")]})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"now"})
        return
    if path == "/forgets":
        return
    if path == "/raises":
        raise ValueError("on purpose")
    names = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": names[-1] if names else None,
                "headers": [(b"x-scope", json.dumps([
                    scope["scheme"], scope["query_string"].decode(), scope["http_version"],
                    "method" in scope, scope["asgi"]["spec_version"]]).encode()),
                    (b"x-split", b"a\\r\\nEvil: 1")]})
    if path == "/returns":
        return
    if path == "/fails":
        raise ValueError("on purpose")
    if path == "/closes":
        await send({"type": "websocket.close", "code": 3333, "reason": "\\u00e9" * 100})
        assert (await receive())["code"] == 3333
        return
    if path == "/slow":
        await asyncio.sleep(0.5)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            with open("/proc/self/cwd/" + scope["query_string"].decode(), "a") as file:
                file.write(json.dumps([message["code"], message.get("reason")]) + "\\n")
            try:
                await send({"type": "websocket.send", "text": "too late"})
            except OSError:
                return
            raise SystemError("it was sent")
        if message.get("text") == "size":
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"] + "!"})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"][::-1]})
'''


@pytest.fixture
def running(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    made: list[Running] = []
    monkeypatch.chdir(tmp_path)

    def make(**env: str) -> Running:
        (tmp_path / "app.py").write_text(APP)
        made.append(Running(python, str(tmp_path / "app.py"), "echo", **env))
        return made[-1]

    yield make
    for it in made:
        it.close()


def ended(tmp_path: Path, name: str) -> list:
    """What the application was told of the end."""
    limit = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):
            text = (tmp_path / name).read_text()
            if text.endswith("\n"):
                return json.loads(text)
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_messages_go_both_ways(running, tmp_path: Path) -> None:
    it = running()
    with WebSocketClient(it.connect(), "/?end", subprotocols=["a", "b"]) as client:
        assert isinstance(client.first, AcceptConnection)
        assert client.first.subprotocol == "b"
        fields = {name: value for name, value in client.first.extra_headers}
        assert json.loads(fields[b"x-scope"]) == ["ws", "end", "1.1", False, "2.3"]
        assert b"x-split" not in fields and b"evil" not in fields
        client.text("hello")
        assert client.message() == "hello!"
        for size in (0, 1, 125, 126, 127, 65535, 65536, 300_000):
            data = bytes(i % 251 for i in range(size))
            client.say(BytesMessage(data))
            assert client.message() == data[::-1]
        client.text("size")
        assert client.message() == bytes(100_000)
        for part, is_last in (("a", False), ("", False), ("é", False), ("z", True)):
            client.say(TextMessage(part, message_finished=is_last))
        assert client.message() == "aéz!"
        client.say(Ping(b"there?"))
        assert client.hear() == Pong(bytearray(b"there?"))
        client.say(CloseConnection(4000, "done"))
        assert client.code() == 4000
        assert client.sock.recv(1) == b""
    assert ended(tmp_path, "end") == [4000, "done"]


@pytest.mark.parametrize("path, status, body", [
    ("/refused", 403, b""), ("/denied", 429, b"not now"),
    ("/forgets", 500, b"the function failed\n"), ("/raises", 500, b"the function failed\n"),
])  # fmt: skip
def test_an_application_may_refuse(running, path: str, status: int, body: bytes) -> None:
    it = running()
    with WebSocketClient(it.connect(), path) as client:
        assert isinstance(client.first, RejectConnection)
        assert client.first.status_code == status
        if status == 429:
            assert (b"retry-after", b"3") in client.first.headers
        told = b""
        while isinstance(event := client.hear(), RejectData):
            told += bytes(event.data)
            if event.body_finished:
                break
        assert told == body


@pytest.mark.parametrize("path, code, reason", [
    ("/returns", 1000, None), ("/fails", 1011, None), ("/closes", 3333, "é" * 61),
])  # fmt: skip
def test_how_an_application_ends_it(running, path: str, code: int, reason: str | None) -> None:
    it = running()
    with WebSocketClient(it.connect(), path) as client:
        event = client.hear()
        assert (event.code, event.reason or None) == (code, reason)
        client.say(event.response())
        assert client.sock.recv(1) == b""


BAD_FRAMES = [
    (frame(1, b"x", is_masked=False), 1002),
    (frame(3, b"x"), 1002),
    (frame(11, b"x"), 1002),
    (frame(1, b"x", first=0xC0), 1002),
    (frame(1, b"x", first=0x90), 1002),
    (frame(0, b"x"), 1002),
    (frame(1, b"x", first=0) + frame(1, b"x"), 1002),
    (frame(9, b"x", first=0), 1002),
    (frame(9, b"x" * 126), 1002),
    (frame(8, b"x"), 1002),
    (frame(8, struct.pack("!H", 999)), 1002),
    (frame(8, struct.pack("!H", 1005)), 1002),
    (frame(8, struct.pack("!H", 1006)), 1002),
    (frame(8, struct.pack("!H", 5000)), 1002),
    (frame(8, struct.pack("!H", 1000) + b"\xff"), 1007),
    (frame(1, b"\xff"), 1007),
    (frame(1, b"\xc3", first=0) + frame(0, b"x"), 1007),
    (frame(2, bytes(1001)), 1009),
    (frame(2, bytes(600), first=0) + frame(0, bytes(401)), 1009),
    (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
    (frame(8), None),
    (frame(8, struct.pack("!H", 1001)), 1001),
]


@pytest.mark.parametrize("data, code", BAD_FRAMES)
def test_what_ends_a_connection(running, tmp_path: Path, data: bytes, code: int | None) -> None:
    """The close frame's code, cut anywhere; and the application hears of it."""
    it = running(MAX_MESSAGE_BYTES="1000")
    for cut in {1, 2, 5, len(data) - 1, len(data)}:
        name = f"end{cut}"
        with WebSocketClient(it.connect(), f"/?{name}") as client:
            client.sock.sendall(data[:cut])
            if cut < len(data):
                time.sleep(0.01)
                client.sock.sendall(data[cut:])
            assert client.code() == (code or 1005)
        assert ended(tmp_path, name)[0] == (code or 1005)


@pytest.mark.parametrize("fields, status", [
    ("Sec-WebSocket-Version: 8", 426), ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: no", 400),
    ("Sec-WebSocket-Version: 13", 400),
    ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA", 400),
])  # fmt: skip
def test_a_handshake_that_is_none(running, fields: str, status: int) -> None:
    it = running()
    head = (
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        f"{fields}\r\n\r\n"
    )
    answer = it.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"Sec-WebSocket-Version: 13" in answer) == (status == 426)


@pytest.mark.parametrize("head", [
    "POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
    "GET / HTTP/1.1\r\nConnection: close\r\nUpgrade: websocket",
    "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: other",
    "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket",
])  # fmt: skip
def test_what_asks_for_no_websocket_is_http(running, head: str) -> None:
    it = running()
    with it.connect() as sock:
        sock.sendall(f"{head}\r\nHost: x\r\n\r\n".encode())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"http\r\n0\r\n\r\n") or (
        answer.endswith(b"\r\n\r\nhttp")
    ), answer


def test_nothing_is_read_while_the_application_takes_nothing(running, tmp_path: Path) -> None:
    it = running()
    with WebSocketClient(it.connect(), "/slow?end") as client:
        data, sent = frame(2, bytes(60_000)), 0
        client.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                client.sock.sendall(data)
                sent += len(data)
        assert sent < 20_000_000  # of 60 MB: the socket was full long before


def test_a_client_that_goes_without_a_word(running, tmp_path: Path) -> None:
    it = running()
    with WebSocketClient(it.connect(), "/?end"):
        pass
    assert ended(tmp_path, "end")[0] == 1006
    assert it.ask("/")[2] == b"http"


def test_a_replica_that_is_stopped_says_goodbye(running, tmp_path: Path) -> None:
    it = running()
    with WebSocketClient(it.connect(), "/?end") as client:
        client.text("x")
        assert client.message() == "x!"
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(client.code()))
        thread.start()
        os.kill(it.process.pid, signal.SIGTERM)
        thread.join()
        assert codes == [1001]
        assert ended(tmp_path, "end")[0] == 1001
        client.sock.sendall(frame(8, struct.pack("!H", 1001)))
        assert it.process.wait(10) == 0
    assert b"Traceback" not in it.process.stderr.read()


def test_who_is_silent_is_asked_and_given_up(running, tmp_path: Path) -> None:
    it = running(WEBSOCKET_PING_S="1")           # a busy machine answers within that, too
    with (
        WebSocketClient(it.connect(), "/?answers") as answers,
        WebSocketClient(it.connect(), "/?silent") as silent,
    ):
        for _ in range(6):
            ping = answers.hear()
            assert isinstance(ping, Ping)
            answers.say(ping.response())
        assert ended(tmp_path, "silent")[0] == 1006
        with pytest.raises(ConnectionError):
            while True:
                assert isinstance(silent.hear(), Ping)
        answers.text("still here")
        while isinstance(event := answers.hear(), Ping):
            answers.say(event.response())
        assert event == TextMessage("still here!")
