"""A head moves out of the read buffer while its request waits, and others are read there: what
variables told before is what they tell after."""

from __future__ import annotations

import base64
import socket
import threading
import time

import pytest
from gateway import wait_for

NAMES = (
    "http_mark", "cookie_c", "arg_a", "uri", "request_uri", "args", "host", "remote_user", "mapped",
    "whole", "part", "taken", "request", "http_user_agent",
)  # fmt: skip
LATER = ("upstream_http_x_kind", "sent_http_x_kind", "upstream_cookie_u")
HTTP = """
    map $http_mark $mapped { default $http_mark; ~^(?<whole>.*)$ $whole-$arg_a; }
    log_format told '%(names)s|%(later)s';
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location /fast { return 200 x; }
        location ~ ^/slow/(?<part>[a-z]+) {
            access_log logs/told.log told;
            set $taken $arg_a;
            set $all "%(names)s";
            if ($all = never) { return 403; }
            add_header X-Before "%(names)s";
            add_header X-Later "%(later)s";
            proxy_pass http://127.0.0.1:%%%%PORT_1%%%%;
            proxy_buffering off;
        }
    }
"""


def head(letter: str, target: str) -> bytes:
    """The same length for each letter, so that it is read to the same place."""
    word, user = letter * 40, base64.b64encode(letter.encode() * 6 + b":x").decode()
    return (
        f"GET {target}{word}?a={word} HTTP/1.1\r\nHost: {letter * 8}.example\r\nMark: {word}\r\n"
        f"Cookie: c={word}\r\nAuthorization: Basic {user}\r\nUser-Agent: {word}\r\n\r\n"
    ).encode()


class Slow:
    """An upstream that answers when it is told: a head, then a long body in pieces."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.may_answer, self.may_end = threading.Event(), threading.Event()
        self.is_asked = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        sock, _ = self.socket.accept()
        with sock:
            sock.recv(65536)
            self.is_asked.set()
            self.may_answer.wait(20)
            word = b"k" * 40
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nX-Kind: %b\r\nSet-Cookie: u=%b\r\nContent-Length: 200000\r\n"
                b"Connection: close\r\n\r\n" % (word, word)
            )
            self.may_end.wait(20)
            sock.sendall(b"z" * 200_000)


@pytest.mark.parametrize("cut", [0, 60])
def test_what_was_told_of_a_head_stays_so(headrace, cut: int) -> None:
    """cut: the head comes in two pieces."""
    names = "~".join(f"${name}" for name in NAMES)
    later = "~".join(f"${name}" for name in LATER)
    gateway = headrace(HTTP % {"names": names, "later": later}, "worker_processes 1;", start=False)
    upstream = Slow(gateway.ports[1])
    gateway.start()
    asked = head("a", "/slow/")
    with gateway.client() as client, gateway.client() as other:
        client.send(asked[:cut]) if cut else None
        time.sleep(0.05 if cut else 0)
        client.send(asked[cut:])
        assert upstream.is_asked.wait(10)
        for _ in range(3):
            other.send(head("b", "/fast/"))
            other.read()
        upstream.may_answer.set()
        time.sleep(0.1)
        other.send(head("b", "/fast/"))
        other.read()
        upstream.may_end.set()
        answer = client.read()
    told = answer.get("x-before").split("~")
    word = "a" * 40
    assert dict(zip(NAMES, told, strict=True)) == {
        "http_mark": word, "cookie_c": word, "arg_a": word, "uri": f"/slow/{word}",
        "request_uri": f"/slow/{word}?a={word}", "args": f"a={word}", "host": "aaaaaaaa.example",
        "remote_user": "aaaaaa", "mapped": f"{word}-{word}", "whole": word, "part": word,
        "taken": word, "request": f"GET /slow/{word}?a={word} HTTP/1.1", "http_user_agent": word,
    }  # fmt: skip
    assert answer.get("x-later") == "~".join(("k" * 40,) * 3)
    wait_for(lambda: gateway.log("told.log"))
    before, _, after = gateway.log("told.log")[0].partition("|")
    assert before == answer.get("x-before")
    assert after == answer.get("x-later")
    upstream.socket.close()
