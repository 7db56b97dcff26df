"""Autobahn's cases for WebSockets, run by kosoku: a tunnel changes nothing, inspected or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping, Request
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

# not 9 (limits), and of 12 and 13 (compression) few: they try how fast the echo is
CASES = [*(f"{n}.*" for n in (1, 2, 3, 4, 5, 6, 7, 10)), "12.1.1", "12.2.1", "13.1.1", "13.3.1"]
LEAST = 240  # so many cases there are
STRICT = {"OK": 0, "NON-STRICT": 1, "INFORMATIONAL": 2, "FAILED": 3}
FAST = {**STRICT, "NON-STRICT": 0}
SERVER = """
    server {
        listen 127.0.0.1:%%%%PORT%s%%%%;
        location / {
            proxy_pass http://127.0.0.1:%d;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            %s
        }
    }
"""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each message back as soon as it is parsed, so that what is thought of this server does not
    hang on how its bytes were cut on their way; then all is read, since a reset would take back
    what was said."""
    websocket = WSConnection(ConnectionType.SERVER)
    message: list[str | bytes] = []
    while read := await reader.read(1 << 16):
        try:
            websocket.receive_data(read)
            for event in websocket.events():
                match event:
                    case Request():
                        agreed = AcceptConnection(extensions=[PerMessageDeflate()])
                        writer.write(websocket.send(agreed))
                    case Message():
                        message.append(event.data)
                        if event.message_finished:
                            whole = type(event.data)().join(message)
                            writer.write(websocket.send(Message(data=whole)))
                            message.clear()
                    case Ping() | CloseConnection():
                        if websocket.state is not ConnectionState.CLOSED:
                            writer.write(websocket.send(event.response()))
        except RemoteProtocolError as wrong:
            writer.write(websocket.send(wrong.event_hint))
            break
        if websocket.state is ConnectionState.CLOSED:
            break
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
        while await reader.read(1 << 16):
            pass
    writer.close()


@pytest.fixture
def echo_port() -> Iterator[int]:
    """An echo that agrees to permessage-deflate."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    is_up = threading.Event()
    end = asyncio.Event()

    async def run() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            is_up.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert is_up.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(10)
    loop.close()


def judged(port: int, folder: Path) -> dict[str, tuple[str, str]]:
    """Case → (what was thought of the messages, of the close)."""
    asked = [word for case in CASES for word in ("-i", case)]
    runner = Path(sys.executable).with_name("kosoku")
    done = subprocess.run(
        [runner, "-m", "fuzzingclient", *asked, "-p", "8", "-o", folder, f"127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    index = folder / "index.json"
    assert index.exists(), done.stderr
    (cases,) = json.loads(index.read_text()).values()
    return {case: (it["behavior"], it["behaviorClose"]) for case, it in cases.items()}


def test_the_suite_finds_what_it_finds_without_a_gateway(headrace, echo_port, tmp_path) -> None:
    gateway = headrace(
        SERVER % ("", echo_port, "") + SERVER % ("_1", echo_port, "websocket_inspect on;")
    )
    direct = judged(echo_port, tmp_path / "direct")
    assert len(direct) >= LEAST
    # an inspector ends a connection at a bad frame, and waits for no echo of what came before it
    for name, port, rank in (
        ("tunnel", gateway.port, STRICT),
        ("inspected", gateway.ports[1], FAST),
    ):
        through = judged(port, tmp_path / name)
        assert through.keys() == direct.keys()
        worse = {
            case: (direct[case], found)
            for case, found in through.items()
            if rank[found[0]] > rank[direct[case][0]] or found[1] != direct[case][1]
        }
        assert not worse, (name, worse)
