"""The error log of a running gateway: whose fault it was, in nginx's words, at the right level."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest
from gateway import wait_for
from recorder import OK, Close

CONF = """
limit_req_zone $uri zone=req:64k rate=1r/m; limit_conn_zone $uri zone=conn:64k;
server {
    listen 127.0.0.1:%%PORT%%; server_name the.server; client_max_body_size 10;
    proxy_read_timeout 200ms;
    location / { return 200 ok; }
    location /up { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    location /pass { proxy_pass http://127.0.0.1:UPSTREAM; }
    location /buffer { proxy_pass http://127.0.0.1:UPSTREAM; proxy_buffer_size 1k; }
    location /req { limit_req zone=req; limit_req_log_level warn;
                    proxy_pass http://127.0.0.1:UPSTREAM; }
    location /dry { limit_req zone=req; limit_req_dry_run on;
                    proxy_pass http://127.0.0.1:UPSTREAM; }
    location /loop { rewrite ^/loop(.*) /loop/x$1; }
}
"""

ANSWERS = {
    "/pass/closes": Close(b""),
    "/pass/babble": Close(b"this is no HTTP\r\n\r\n"),
    "/pass/cut": Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
    "/pass/chunk": Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"),
    "/buffer": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    "/req": OK,
    "/dry": OK,
}

# what is sent → level, words
FAULTS = [
    ("GET /up", "error", r"connect\(\) failed \(111: Connection refused\) while connecting to"),
    ("GET /pass/closes", "error", "upstream prematurely closed connection while reading response"),
    ("GET /pass/babble", "error", "upstream sent invalid header while reading response header"),
    ("GET /pass/cut", "error", "upstream prematurely closed connection while reading upstream"),
    ("GET /pass/chunk", "error", "upstream sent invalid chunked response"),
    ("GET /buffer", "error", "upstream sent too big header while reading response header"),
    (
        "GET /pass/silent",
        "error",
        r"upstream timed out \(110: Connection timed out\) while reading",
    ),
    ("POST / 20", "error", "client intended to send too large body: 20 bytes"),
    ("GET /loop", "error", "rewrite or internal redirection cycle"),
]


@pytest.fixture
def gateway(headrace, upstream):
    is_over = threading.Event()

    def silence() -> Iterator[bytes]:
        is_over.wait(10)
        yield OK

    upstream.answer = lambda it: ANSWERS[it.target] if it.target in ANSWERS else silence()
    yield headrace(CONF.replace("UPSTREAM", str(upstream.port)))
    is_over.set()


@pytest.mark.parametrize(("sent", "level", "words"), FAULTS)
def test_faults(gateway, sent, level, words):
    method, target, *length = sent.split()
    head = f"{method} {target} HTTP/1.1\r\nHost: h.example\r\nReferer: http://r/\r\n"
    head += f"Content-Length: {length[0]}\r\n\r\n" if length else "\r\n"
    with gateway.client() as client:
        client.send(head)
        client.sock.recv(1)
        wait_for(lambda: re.search(words, gateway.error_log))
    found = [line for line in gateway.error_log.splitlines() if re.search(words, line)]
    assert len(found) == 1
    said = (
        rf"\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[{level}\] (\d+)#\1: \*\d+ {words}.*"
        r", client: 127\.0\.0\.1, server: the\.server"
        rf', request: "{method} {target} HTTP/1\.1"'
    )
    assert re.match(said, found[0]), found[0]
    assert found[0].endswith(', host: "h.example", referrer: "http://r/"')
    is_passed = target.startswith(("/up", "/pass", "/buffer"))
    assert (f'{target}", host: ' in found[0] and 'upstream: "http://127' in found[0]) == is_passed


def test_what_a_client_did_wrong_is_only_information(gateway):
    gateway.raw("BABBLE\r\n\r\n")
    gateway.raw("GET /half HTTP/1.1\r\n")
    wait_for(lambda: gateway.error_log.count("[info]") >= 2)
    lines = [line for line in gateway.error_log.splitlines() if "[info]" in line]
    assert "client sent invalid request" in lines[0]
    assert "client prematurely closed connection" in lines[1]


def test_limits_tell_at_their_own_level(gateway):
    for target in ("/req", "/req", "/dry", "/dry"):
        gateway.get(target)
    wait_for(lambda: "dry run" in gateway.error_log)
    assert re.search(
        r'\[warn\] .*limiting requests, excess: \d\.\d{3} by zone "req"', gateway.error_log
    )
    assert re.search(r"\[error\] .*limiting requests, dry run, excess", gateway.error_log)


def test_each_place_has_its_own_file_and_level(headrace, upstream):
    upstream.answer = lambda request: Close(b"")
    gateway = headrace(
        """error_log logs/http.log;
        server { listen 127.0.0.1:%%PORT%%; client_max_body_size 1;
        location / { proxy_pass http://127.0.0.1:UPSTREAM; }
        location /own { error_log logs/own.log; proxy_pass http://127.0.0.1:UPSTREAM; }
        location /two { error_log logs/two.log crit; error_log logs/more.log info;
                        proxy_pass http://127.0.0.1:UPSTREAM; } }""".replace(
            "UPSTREAM", str(upstream.port)
        )
    )
    for target in ("/a", "/own", "/two"):
        assert gateway.get(target).status == 502
    wait_for(lambda: gateway.log("more.log"))
    assert len(gateway.log("http.log")) == 1
    assert len(gateway.log("own.log")) == 1
    assert len(gateway.log("more.log")) == 1
    assert gateway.log("two.log") == []
    assert "upstream" not in gateway.error_log


def test_long_words_are_cut_and_lines_stay_lines(gateway):
    with gateway.client() as client:
        client.send(f"GET /up/{'x' * 6000} HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read().status == 502
    with gateway.client() as client, socket.socket():
        assert client.get("/").status == 200
    wait_for(lambda: "refused" in gateway.error_log)
    lines = gateway.error_log.splitlines()
    assert all(re.match(r"\d{4}/", line) for line in lines)
    assert max(map(len, lines)) == 2047
