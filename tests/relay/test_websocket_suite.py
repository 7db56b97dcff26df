"""Autobahn's cases for WebSockets, run by kosoku: a tunnel changes nothing, inspected or not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websocket_echo import serving

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


@pytest.fixture
def echo_port() -> Iterator[int]:
    with serving() as port:
        yield port


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
