"""Requests over HTTP/3, as the upstream sees them and as the client gets their answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from gateway import Gateway
from h3client import H3Client
from recorder import OK, Close, Recorded, Recorder, answer


@pytest.fixture
def proxy(quic, upstream: Recorder) -> Gateway:
    return quic(f"location / {{ proxy_pass http://{upstream.address}; client_max_body_size 1m; }}")


def test_a_request_reaches_the_upstream_as_http_1(proxy: Gateway, upstream: Recorder) -> None:
    with H3Client(proxy.port) as client:
        response = client.get("/a?b=c", fields=[("x-a", "1"), ("te", "trailers"), ("cookie", "a=1"),
                                                ("cookie", "b=2")])  # fmt: skip
    assert (response.status, response.body) == (200, b"ok")
    assert response.get("content-length") == "2"
    assert response.get("connection") is None
    asked = upstream.last
    assert (asked.method, asked.target, asked.version) == ("GET", "/a?b=c", "HTTP/1.1")
    assert asked.get("host") == upstream.address
    assert asked.get_all("cookie") == ["a=1; b=2"]
    assert asked.get("x-a") == "1"


@pytest.mark.parametrize("size", [0, 1, 5, 65535, 65536, 300_000])
def test_bodies_of_known_length(proxy: Gateway, upstream: Recorder, size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    with H3Client(proxy.port) as client:
        response = client.get("/", method="POST", body=body,
                              fields=[("content-length", str(size))])  # fmt: skip
    assert response.status == 200
    assert upstream.last.body == body
    assert upstream.last.get_all("content-length") == [str(size)]


def test_a_body_of_unknown_length_is_passed_in_chunks(quic, upstream: Recorder) -> None:
    gateway = quic(f"""location / {{ proxy_pass http://{upstream.address}; proxy_http_version 1.1;
                   proxy_request_buffering off; }}""")
    with H3Client(gateway.port) as client:
        number = client.ask("/", method="POST", body=b"one", end=False)
        client.step(0.05)
        client.send(number, b"two", end=True)
        assert client.read(number).status == 200
    assert upstream.last.body == b"onetwo"
    assert upstream.last.get("transfer-encoding") == "chunked"


def test_a_large_answer_comes_whole(quic, upstreams) -> None:
    body = bytes(i % 253 for i in range(3_000_000))
    gateway = quic(f"location / {{ proxy_pass http://{upstreams(answer(body)).address}; }}")
    with H3Client(gateway.port) as client:
        response = client.get()
    assert response.body == body


def test_many_at_once_come_back_each_on_its_stream(quic, upstreams) -> None:
    upstream = upstreams(lambda it: answer(it.target.encode() * 100))
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}")
    with H3Client(gateway.port) as client:
        numbers = [client.ask(f"/{i}") for i in range(100)]
        for i, number in enumerate(numbers):
            assert client.read(number).body == f"/{i}".encode() * 100


def test_an_answer_in_chunks_with_trailers(quic, upstreams) -> None:
    chunked = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n"
               b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n")  # fmt: skip
    gateway = quic(f"""location / {{ proxy_pass http://{upstreams(chunked).address};
                   proxy_pass_trailers on; add_trailer X-Own mine; }}""")
    with H3Client(gateway.port) as client:
        response = client.get(fields=[("te", "trailers")])
    assert response.body == b"abc"
    assert sorted(response.trailers) == [("x-own", "mine"), ("x-t", "1")]


def test_an_upstream_that_dies_in_its_answer_resets_the_stream(quic, upstreams) -> None:
    cut = Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    gateway = quic(f"""location / {{ proxy_pass http://{upstreams(cut).address}; }}
                   location /ok {{ return 200 ok; }}""")
    with H3Client(gateway.port) as client:
        response = client.get()
        assert response.code is not None and not response.is_whole
        assert client.get("/ok").text == "ok"                # nobody else notices


def test_a_client_that_does_not_read_stops_its_answer_alone(quic, upstreams) -> None:
    sent = []

    def endless(_: Recorded) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
        for _ in range(1000):
            sent.append(1)
            yield bytes(100_000)

    gateway = quic(f"""location / {{ proxy_pass http://{upstreams(endless).address};
                   proxy_buffering off; }} location /small {{ return 200 small; }}""")
    with H3Client(gateway.port, takes=False, window=50_000) as client:
        number = client.ask()
        client.run(lambda: len(client.responses[number].body) > 49_000)
        assert client.get("/small").text == "small"
        assert sum(sent) < 100                               # 10 MB: sockets' buffers and ours


def test_an_upload_that_the_upstream_does_not_take_waits_at_the_client(quic) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        gateway = quic(f"""client_max_body_size 0; location / {{
            proxy_pass http://127.0.0.1:{server.getsockname()[1]}; proxy_request_buffering off; }}
            location /small {{ return 200 small; }}""")
        with H3Client(gateway.port) as client:
            number = client.ask("/", method="POST", body=bytes(8_000_000),
                                fields=[("content-length", "8000000")])  # fmt: skip
            peer, _ = server.accept()
            assert client.get("/small").text == "small"
            stream = client.quic._streams[number]
            before = -1
            while stream.sender.highest_offset != before:    # until it has stalled
                before = stream.sender.highest_offset
                for _ in range(10):
                    client.step(0.02)
            assert before < 7_000_000
            taken = 0
            peer.settimeout(10)
            while taken < 8_000_000:
                taken += len(peer.recv(1 << 20))
                client.step(0.0)
            peer.sendall(OK)
            assert client.read(number).status == 200
            peer.close()
