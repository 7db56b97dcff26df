"""What a client did wrong: it hears a status first where that can be said, and others go on."""

from __future__ import annotations

import time

import pytest
from gateway import Gateway, wait_for
from h2client import H2Client
from recorder import Recorder, answer

PROTOCOL, CALM = 1, 11


@pytest.fixture
def gateway(headrace, upstream: Recorder) -> Gateway:
    return headrace(
        "access_log logs/access.log; client_header_timeout 1s; client_body_timeout 1s; "
        "server { listen %%PORT%%; http2 on; error_page 400 /wrong; "
        "location = /wrong { internal; return 200 'wrong page'; } "
        "location /here { return 200 $http_a; } "
        f"location / {{ proxy_pass http://{upstream.address}; }} "
        "location /flow { proxy_request_buffering off; "
        f"proxy_pass http://{upstream.address}; }} }}"
    )


@pytest.mark.parametrize(
    "fields", [[("A", "b")], [("a", "b\r\nc: d")], [("connection", "close")], [("a:b", "c")],
               [("content-length", "1"), ("content-length", "1")]],
)  # fmt: skip
def test_a_malformed_head_gets_a_page(gateway, upstream, fields) -> None:
    with H2Client(gateway.port) as client:
        response = client.get("/", fields=fields)
        assert (response.status, response.body) == (400, b"wrong page")
        assert client.get("/here").status == 200
    assert upstream.requests == []
    wait_for(lambda: len(gateway.log()) == 2)
    assert '" 400 ' in gateway.log()[0]


@pytest.mark.parametrize("target", ["/", "/flow"])
@pytest.mark.parametrize("length", ["3", "9"])
def test_a_body_of_another_length_gets_a_page(gateway, upstreams, target, length) -> None:
    with H2Client(gateway.port) as client:
        number = client.ask(target, "POST", end=False, fields=[("content-length", length)])
        client.raw(b"\0\0\5\0\1" + number.to_bytes(4, "big") + b"bytes")
        response = client.read(number)
        assert (response.status, response.body) == (400, b"wrong page")
        assert client.get("/here").status == 200


def test_a_body_that_is_wrong_behind_an_answers_head_is_cut(headrace, upstreams) -> None:
    upstream = upstreams(lambda it: answer(b"early"))
    gateway = headrace("server { listen %%PORT%%; http2 on; location /here { return 200 here; } "
                       f"location / {{ proxy_request_buffering off; limit_rate 1; "
                       f"proxy_pass http://{upstream.address}; }} }}")  # fmt: skip
    with H2Client(gateway.port) as client:
        number = client.ask("/here", "POST", end=False, fields=[("content-length", "3")])
        while client.responses[number].status == 0:
            assert client.step()
        client.raw(b"\0\0\5\0\1" + number.to_bytes(4, "big") + b"bytes")
        assert client.get("/here").status == 200


def test_a_control_byte_in_a_value_is_passed_to_nobody(gateway, upstream) -> None:
    with H2Client(gateway.port) as client:
        assert client.get("/here", fields=[("a", "b\x01\x0bc")]).body == b"b\x01\x0bc"
        assert client.get("/", fields=[("a", "b\x01\x0bc")]).status == 400
    assert upstream.requests == []


def test_a_head_that_is_too_large_ends_the_connection(gateway) -> None:
    with H2Client(gateway.port) as client, H2Client(gateway.port) as other:
        client.ask("/here", fields=[("a", "b" * 9000)])
        parted = client.wait_closed()
        assert parted is not None
        assert parted.error_code == CALM
        assert other.get("/here").status == 200


def test_a_head_that_does_not_come_whole_costs_its_stream(gateway) -> None:
    block = b"\x82\x86\x84\x41\x06a.test"
    head = len(block).to_bytes(3, "big") + b"\1\5\0\0\0\1" + block
    with H2Client(gateway.port) as client:
        client.raw(head[:-3])
        said = b""
        while (b"\0\0\4\3\0\0\0\0\1" + PROTOCOL.to_bytes(4, "big")) not in said:
            said += client.sock.recv(4096)                   # RST_STREAM
        client.raw(head[-3:])                                # it is read, and dropped
        client.raw(b"\0\0\x08\6\0\0\0\0\0" + b"whatever")
        said = b""
        while b"whatever" not in said:
            said += client.sock.recv(4096)
        assert b"\0\0\0\1" not in said                       # nothing on stream 1


def test_a_body_that_stays_away_gets_408(gateway) -> None:
    with H2Client(gateway.port) as client:
        number = client.ask("/", "POST", end=False)
        response = client.read(number)
        assert response.status == 408
        assert client.get("/here").status == 200


def test_small_frames_of_one_read_become_one_chunk(headrace, upstream) -> None:
    gateway = headrace("server { listen %%PORT%%; http2 on; proxy_request_buffering off; "
                       f"location / {{ proxy_pass http://{upstream.address}; }} }}")  # fmt: skip
    with H2Client(gateway.port) as client:
        number = client.ask("/", "POST", end=False)
        id_ = number.to_bytes(4, "big")
        client.raw(b"".join(b"\0\0\1\0\0" + id_ + b"x" for _ in range(500))
                   + b"\0\0\1\0\1" + id_ + b"y")
        assert client.read(number).status == 200
    assert upstream.last.body == b"x" * 500 + b"y"


def test_requests_that_are_cut_by_a_leaving_worker_are_logged(headrace, upstreams) -> None:
    upstream = upstreams(lambda it: time.sleep(20) or answer(b"late"))
    gateway = headrace(
        "access_log logs/access.log; server { listen %%PORT%%; http2 on; "
        f"location / {{ proxy_pass http://{upstream.address}; }} }}",
        main="worker_shutdown_timeout 10ms;",
    )
    with H2Client(gateway.port) as client, gateway.client() as old:
        client.ask("/2")
        old.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        upstream.wait(2)
        gateway.stop(3)                                      # SIGQUIT
    assert sorted(line.split('"')[1] for line in gateway.log()) == [
        "GET /1 HTTP/1.1", "GET /2 HTTP/2.0"]  # fmt: skip
    assert all('" 499 ' in line for line in gateway.log())
