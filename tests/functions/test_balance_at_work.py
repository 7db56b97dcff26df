"""Which replica a running gateway asks: who fails is left out, who is new begins slowly, and a key
has its replica."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from gateway import Gateway, wait_for

STATIC = """
    access_log off;
    function f {
        static 127.0.0.1:%%PORT_1%% 127.0.0.1:%%PORT_2%% 127.0.0.1:%%PORT_3%%;
        balance WORDS;
    }
    server { listen 127.0.0.1:%%PORT%%; location / { function_pass f; } }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 one; }
    server { listen 127.0.0.1:%%PORT_2%%; return 200 two; }
"""


class Broken:
    """The third replica: takes connections and drops them, until it `works`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.asked = 0
        self.works = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.socket.accept()
                with sock:
                    sock.settimeout(5)
                    if sock.recv(65536):  # a look that it is ready says nothing
                        self.asked += 1
                    if self.works:
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree")


@pytest.fixture
def static(headrace) -> Iterator:
    """A maker of (gateway, third replica), all of them known to the worker."""
    made: list[Broken] = []

    def make(words: str) -> tuple[Gateway, Broken]:
        gateway = headrace(STATIC.replace("WORDS", words), start=False)
        made.append(Broken(gateway.ports[3]))
        made[-1].works = True
        gateway.start()
        wait_for(lambda: len({gateway.get(f"/?u={n}").text for n in range(40)}) == 3, 20)
        return gateway, made[-1]

    yield make
    for it in made:
        it.socket.close()


def test_who_fails_is_left_out_and_comes_back(static) -> None:
    gateway, third = static("round_robin max_fails=1 fail_timeout=2s")
    third.works, third.asked = False, 0
    began = time.monotonic()
    answers = [gateway.get("/").text for _ in range(40)]
    assert set(answers) == {"one", "two"}  # nobody noticed
    assert time.monotonic() - began > 2 or third.asked == 1
    third.works = True
    wait_for(lambda: gateway.get("/").text == "three", 10)
    assert Counter(gateway.get("/").text for _ in range(30))["three"] == 10


def test_a_key_has_its_replica_and_others_stay_when_one_fails(static) -> None:
    gateway, third = static("hash $arg_u max_fails=1 fail_timeout=60s")
    homes = {n: gateway.get(f"/?u={n}").text for n in range(60)}
    assert {n: gateway.get(f"/?u={n}").text for n in range(60)} == homes
    assert min(Counter(homes.values()).values()) > 5
    third.works = False
    later = {n: gateway.get(f"/?u={n}").text for n in range(60)}
    assert {n: it for n, it in later.items() if homes[n] != "three"} == {
        n: it for n, it in homes.items() if it != "three"
    }
    assert set(later.values()) == {"one", "two"}
    assert {n: gateway.get(f"/?u={n}").text for n in range(60)} == later


CLOSING = """
    access_log off;
    function f {
        static 127.0.0.1:%%PORT_1%% 127.0.0.1:%%PORT_2%%;
        balance hash $arg_u max_fails=1 fail_timeout=60s;
    }
    server { listen 127.0.0.1:%%PORT%%; location / { function_pass f; } }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 one; }
"""


def serve_once_each(listener: socket.socket, closed: list[int]) -> None:
    """Answers one request of each connection, and closes it when the next one has come."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if sock.recv(65536):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo")
                if sock.recv(65536):
                    closed.append(1)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def test_who_closes_what_was_kept_has_not_failed(headrace) -> None:
    gateway = headrace(CLOSING, "worker_processes 1;", start=False)
    closed: list[int] = []
    with socket.create_server(("127.0.0.1", gateway.ports[2])) as listener:
        thread = threading.Thread(target=serve_once_each, args=(listener, closed), daemon=True)
        thread.start()
        gateway.start()
        homes: dict[str, int] = {}

        def has_both() -> bool:
            homes.update({gateway.get(f"/?u={n}").text: n for n in range(20)})
            return len(homes) == 2

        wait_for(has_both, 20)
        assert {gateway.get(f"/?u={homes['two']}").text for _ in range(40)} == {"two"}
        assert len(closed) > 10  # it did close some under our hands


SCALED = """
    access_log off;
    function f { python app.py:handle; min_scale 1; max_scale 4; balance %s; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%; openfaas_api on; openfaas_auth off;
        location / { function_pass f; }
    }
"""


@pytest.mark.parametrize("words", ["least_in_flight", "least_in_flight slow_start=60s"])
def test_who_is_new_begins_slowly_if_the_conf_says_so(headrace, words: str) -> None:
    gateway = headrace(SCALED % words, start=False)
    (gateway.prefix / "app.py").write_text(
        "import os\n\ndef handle(event, context):\n    return str(os.getpid())\n"
    )
    gateway.start()
    wait_for(lambda: gateway.get("/").status == 200, 20)
    old = gateway.get("/").text
    body = json.dumps({"serviceName": "f", "replicas": 2}).encode()
    assert gateway.ask("POST", "/system/scale-function/f", body).status == 202
    wait_for(
        lambda: json.loads(gateway.get("/system/function/f").body)["availableReplicas"] == 2, 20
    )
    asked = Counter(gateway.get("/").text for _ in range(80))
    if "slow_start" in words:
        assert asked[old] >= 64, asked  # the new one has had a second or two of its minute
    else:
        assert 20 <= asked[old] <= 60, asked
