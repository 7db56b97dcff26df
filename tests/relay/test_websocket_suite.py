"""Autobahn's cases for WebSockets, run by kosoku: a tunnel changes nothing, inspected or not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

# not 9 (limits), and of 12 and 13 (compression) few: they try how fast the echo is
CASES = [*(f"{n}.*" for n in (1, 2, 3, 4, 5, 6, 7, 10)), "12.1.1", "12.2.1", "13.1.1", "13.3.1"]
LEAST = 240  # so many cases there are
ORDER = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")
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


@pytest.fixture
def echo_port() -> Iterator[int]:
    """An echo that agrees to permessage-deflate."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    is_up = threading.Event()
    end = asyncio.Event()

    async def echo(client) -> None:
        async for message in client:
            await client.send(message)

    async def run() -> None:
        async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
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
    for name, port in (("tunnel", gateway.port), ("inspected", gateway.ports[1])):
        through = judged(port, tmp_path / name)
        assert through.keys() == direct.keys()
        worse = {
            case: (direct[case], found)
            for case, found in through.items()
            if ORDER.index(found[0]) > ORDER.index(direct[case][0]) or found[1] != direct[case][1]
        }
        assert not worse, (name, worse)
