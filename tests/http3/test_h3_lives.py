"""How HTTP/3's connections live: over a reload, from another port, on the wrong worker's socket."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioquic.quic.packet import QuicPacketType
from gateway import Gateway, wait_for
from h3client import H3Client
from recorder import Recorded

OK = "location /ok { return 200 ok; }"
ADDR = "location /addr { return 200 $remote_port; }"
WHO = "location / { return 200 $pid; }"


def slowly(size: int, pieces: int, wait_s: float):
    """An answer that takes its time."""

    def answer(_: Recorded) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size * pieces)
        for _ in range(pieces):
            time.sleep(wait_s)
            yield bytes(size)

    return answer


def test_a_download_goes_on_over_a_reload(quic, upstreams) -> None:
    upstream = upstreams(slowly(50_000, 40, 0.05))
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {OK}")
    with H3Client(gateway.port) as client:
        number = client.ask()
        client.run(lambda: len(client.responses[number].body) > 100_000)
        before = gateway.workers()
        gateway.signal(1)
        client.run(lambda: client.parted is not None)
        assert not client.responses[number].is_whole         # it is the old worker that answers
        with H3Client(gateway.port) as other:                # while new clients are the new one's
            assert other.get("/ok").text == "ok"
        response = client.read(number)
        assert len(response.body) == 2_000_000
        assert client.wait_closed().error_code == 0x100
    wait_for(lambda: not set(gateway.workers()) & set(before))





def test_an_upload_goes_on_over_a_reload(quic, upstream) -> None:
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}")
    with H3Client(gateway.port) as client:
        number = client.ask("/", method="POST", body=bytes(100_000), end=False)
        client.step(0.1)
        gateway.signal(1)
        client.run(lambda: client.parted is not None)
        client.send(number, bytes(900_000), end=True)
        assert client.read(number).status == 200
    assert len(upstream.last.body) == 1_000_000


def test_a_handshake_goes_on_over_a_reload(quic) -> None:
    gateway = quic(WHO)
    with H3Client(gateway.port, connect=False) as client:
        client.sock.settimeout(5)
        held = client.sock.recv(65536)                       # the server's flight is on its way
        before = set(gateway.workers())
        gateway.signal(1)
        wait_for(lambda: len(set(gateway.workers()) - before) == 1)
        time.sleep(0.3)
        client.quic.receive_datagram(held, client.to, now=time.monotonic())
        client.connect()
        assert client.is_ready
        number = client.ask()
        response = client.responses[number]
        client.run(lambda: response.is_whole or response.code is not None or client.ended)
        assert response.status == 200 or client.parted is not None  # answered, or to ask again


def test_an_idle_connection_hears_goaway_at_a_reload(quic) -> None:
    gateway = quic(WHO)
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        gateway.signal(signal.SIGHUP)
        client.run(lambda: client.ended is not None)
        assert client.parted is not None
        assert client.ended.error_code == 0x100


def test_a_request_after_goaway_is_to_be_asked_again(quic, upstreams) -> None:
    upstream = upstreams(slowly(1000, 40, 0.1))
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {OK}",
                   "keepalive_requests 1;")  # fmt: skip
    with H3Client(gateway.port) as client:
        first = client.ask()
        client.run(lambda: client.parted is not None)
        assert client.parted == 4                            # the second request is the first that
        second = client.ask("/ok")                           # is not answered
        assert client.read(second).code == 0x10B             # H3_REQUEST_REJECTED
        assert len(client.read(first).body) == 40_000
        assert client.wait_closed().error_code == 0x100


def test_a_client_may_change_its_port(quic, upstreams) -> None:
    upstream = upstreams(slowly(20_000, 40, 0.02))
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {ADDR}")
    with H3Client(gateway.port) as client:
        number = client.ask()
        client.run(lambda: len(client.responses[number].body) > 40_000)
        client.migrate()
        client.ask("/addr")                                  # it must say something from there
        assert len(client.read(number).body) == 800_000
        assert client.get("/addr").text == str(client.sock.getsockname()[1])


def test_a_client_may_change_its_port_amid_its_body(quic, upstream) -> None:
    gateway = quic(f"client_max_body_size 0; location / {{ proxy_pass http://{upstream.address};"
                   f"proxy_request_buffering off; }} {ADDR}")  # fmt: skip
    body = bytes(range(251)) * 8000
    with H3Client(gateway.port) as client:
        number = client.ask("/", method="POST", body=body[:100_000], end=False)
        before = client.sock.getsockname()[1]
        for at in range(100_000, len(body), 400_000):        # several times, each amid a piece
            client.send(number, body[at:at + 400_000], end=at + 400_000 >= len(body))
            client.migrate()
        assert client.read(number).status == 200
        assert client.get("/addr").text == str(client.sock.getsockname()[1]) != str(before)
    assert upstream.last.body == body


def test_each_worker_passes_on_what_belongs_to_another(quic) -> None:
    gateway = quic(WHO, main="worker_processes 3;")
    wait_for(lambda: len(gateway.workers()) == 3)
    seen = set()
    for _ in range(12):
        with H3Client(gateway.port) as client:
            pid = client.get().text
            seen.add(pid)
            for _ in range(4):                               # a port falls to any worker's socket
                client.migrate()
                assert client.get().text == pid
    assert len(seen) > 1


def test_many_workers_and_a_reload_to_fewer(quic, upstreams) -> None:
    upstream = upstreams(slowly(20_000, 30, 0.1))
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }}",
                   main="worker_processes 3;")  # fmt: skip
    wait_for(lambda: len(gateway.workers()) == 3)
    clients = [H3Client(gateway.port) for _ in range(6)]
    numbers = [client.ask() for client in clients]
    for client, number in zip(clients, numbers, strict=True):
        client.run(lambda: client.responses[number].status == 200)  # noqa: B023
    gateway.conf.write_text(gateway.conf.read_text().replace("processes 3", "processes 1"))
    gateway.signal(1)
    until = time.monotonic() + 30
    while time.monotonic() < until and not all(
        client.responses[number].is_whole for client, number in zip(clients, numbers, strict=True)
    ):
        for client in clients:
            client.step(0.01)
    for client, number in zip(clients, numbers, strict=True):
        assert len(client.responses[number].body) == 600_000
        client.__exit__()
    wait_for(lambda: len(gateway.workers()) == 1)


def test_an_address_is_proved_first_with_quic_retry(quic) -> None:
    gateway = quic(WHO, "quic_retry on;")
    with H3Client(gateway.port) as client:
        assert client.packets[0] == QuicPacketType.RETRY
        assert client.get().status == 200


def test_a_token_that_is_not_ours_ends_the_connection(quic) -> None:
    gateway = quic(WHO, "quic_retry on;")
    with H3Client(gateway.port, token=b"x" * 40) as client:
        assert client.ended is not None
        assert client.ended.error_code == 0xB                # INVALID_TOKEN


def test_versions_are_negotiated(quic: Gateway) -> None:
    gateway = quic(WHO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        unknown = b"\xc0\x1a\x2a\x3a\x4a\x08destined\x08sourced!" + bytes(1200)
        sock.sendto(unknown, ("127.0.0.1", gateway.port))
        said = sock.recv(2048)
    assert said[1:5] == bytes(4)
    assert said[5:23] == b"\x08sourced!\x08destined"
    assert (1).to_bytes(4, "big") in said[23:]


def test_a_connection_of_a_dead_worker_is_reset(certificates: Path, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, f"""
        ssl_certificate {certificates}/a.crt; ssl_certificate_key {certificates}/a.key;
        server {{ listen 127.0.0.1:%%PORT%% quic; {WHO} }}""").start()
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        (before,) = gateway.workers()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: gateway.workers() not in ([], [before]))
        client.ask()
        client.sock.settimeout(5)
        token = client.quic._peer_cid.stateless_reset_token
        assert token
        reset = client.sock.recv(2048)
        while reset[-16:] != token:  # what the dead one had said before
            reset = client.sock.recv(2048)
        assert reset[0] & 0xC0 == 0x40
    gateway.stop()


@pytest.mark.parametrize("order", [3, 15])
def test_it_leaves_when_it_is_told(quic, order: int) -> None:
    gateway = quic(WHO)
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        gateway.signal(order)
        wait_for(lambda: not client.step(0.05) and gateway.process.poll() is not None)


def test_on_a_wildcard_answers_come_from_the_address_that_was_asked(headrace, certificates) -> None:
    gateway = headrace(f"""
        ssl_certificate {certificates}/a.crt; ssl_certificate_key {certificates}/a.key;
        server {{ listen %%PORT%% quic; return 200 $server_addr:$server_port; }}""")
    with H3Client(gateway.port, connect=False, host="127.0.0.2") as client:
        client.sock.settimeout(5)
        data, where = client.sock.recvfrom(65536)
        assert where == ("127.0.0.2", gateway.port)
        client.quic.receive_datagram(data, client.to, now=time.monotonic())
        client.connect()
        assert client.get().text == f"127.0.0.2:{gateway.port}"
