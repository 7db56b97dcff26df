"""Hostile clients of HTTP/3: each is stopped, and another client is served meanwhile."""

from __future__ import annotations

import os
import socket
import time

from aioquic.quic.packet import QuicPacketType
from h3client import H3Client
from recorder import Recorded

EXCESSIVE_LOAD = 0x107
OK = "location /ok { return 200 ok; }"


def never(_: Recorded) -> None:
    """No answer at all."""
    time.sleep(20)


def test_requests_that_are_taken_back_at_once(quic, upstreams) -> None:
    gateway = quic(f"location / {{ proxy_pass http://{upstreams(never).address}; }} {OK}",
                   "http3_max_resets 20;")  # fmt: skip
    with H3Client(gateway.port) as other, H3Client(gateway.port) as client:
        while client.ended is None:
            number = client.ask()
            client.quic.reset_stream(number, 0x10C)
            client.quic.stop_stream(number, 0x10C)
            client.flush()
            client.step(0.01)
            assert number < 400
        assert client.ended.error_code == EXCESSIVE_LOAD
        assert other.get("/ok").text == "ok"


def test_malformed_requests_count_too(quic) -> None:
    gateway = quic(OK, "http3_max_resets 5;")
    with H3Client(gateway.port) as client:
        for _ in range(10):
            if client.ended is None:
                client.ask_raw([(":method", "GET")])
                client.step(0.05)
        assert client.wait_closed().error_code == EXCESSIVE_LOAD


def test_no_more_requests_at_once_than_allowed(quic, upstreams) -> None:
    upstream = upstreams(never)
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {OK}",
                   "http3_max_concurrent_streams 4;")  # fmt: skip
    with H3Client(gateway.port) as client:
        for _ in range(8):
            client.ask()
        for _ in range(10):
            client.step(0.05)
        assert len(upstream.requests) <= 4


def test_a_body_that_nobody_takes_waits_at_its_client(quic, upstreams) -> None:
    gateway = quic(f"""location / {{ limit_req zone=slow burst=5; proxy_pass
                   http://{upstreams().address}; }} {OK}""", "http3_stream_buffer_size 16k;",
                   "limit_req_zone $server_port zone=slow:1m rate=1r/s;")  # fmt: skip
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        number = client.ask("/", method="POST", body=bytes(500_000))
        assert client.get("/ok").text == "ok"
        assert client.quic._streams[number].sender.highest_offset <= 16384
        assert client.read(number).status == 200             # its turn came, and its body


def initial(number: int) -> bytes:
    """A datagram that looks like the beginning of a connection and is none."""
    head = b"\xc0" + (1).to_bytes(4, "big") + b"\x08" + number.to_bytes(8, "big") + b"\x00"
    return head + b"\x00" + (1182 | 0x4000).to_bytes(2, "big") + os.urandom(1182)


def test_a_flood_of_beginnings_makes_clients_prove_their_address(quic) -> None:
    gateway = quic(OK, "client_header_timeout 4s;")
    with H3Client(gateway.port) as other:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.connect(("127.0.0.1", gateway.port))
            for number in range(100):
                flood.send(initial(number))
                time.sleep(0.005)                            # else the socket's buffer is full
        assert other.get("/ok").text == "ok"
        with H3Client(gateway.port) as late:
            assert late.packets[0] == QuicPacketType.RETRY
            assert late.get("/ok").text == "ok"
        time.sleep(4.2)                                      # the flood's have had their time
        with H3Client(gateway.port) as later:
            assert later.packets[0] != QuicPacketType.RETRY


def test_what_is_no_quic_is_dropped(quic) -> None:
    gateway = quic(OK)
    with H3Client(gateway.port) as client:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            noise.connect(("127.0.0.1", gateway.port))
            for size in (0, 1, 5, 6, 7, 20, 1199, 1200, 1500, 9000):
                for first in (0x00, 0x40, 0x80, 0xC0, 0xFF):
                    noise.send(bytes([first] * min(size, 1)) + os.urandom(max(size - 1, 0)))
            whole = initial(7)
            for size in range(60):                           # cut at each byte of its head
                noise.send(whole[:size])
                noise.send(whole[:size] + bytes(1200 - size))
        assert client.get("/ok").text == "ok"


def test_an_idle_client_is_let_go(quic) -> None:
    gateway = quic(OK, "keepalive_timeout 1s;")
    with H3Client(gateway.port) as client:
        assert client.get("/ok").text == "ok"
        begun = time.monotonic()
        assert client.wait_closed().error_code == 0x100
        assert time.monotonic() - begun >= 0.8


def test_a_body_that_does_not_come_ends_its_request(quic, upstreams) -> None:
    gateway = quic(f"""client_body_timeout 1s; location / {{ proxy_pass
                   http://{upstreams().address}; }} {OK}""")
    with H3Client(gateway.port) as client:
        number = client.ask("/", method="POST", body=b"abc", end=False)
        assert client.read(number).status == 408
        assert client.get("/ok").text == "ok"


def test_a_client_that_takes_nothing_is_cut(quic, upstreams) -> None:
    def endless(_: Recorded):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"
        for _ in range(100):
            yield bytes(100_000)

    gateway = quic(f"""send_timeout 1s; location / {{ proxy_buffering off;
                   proxy_pass http://{upstreams(endless).address}; }} {OK}""")
    with H3Client(gateway.port, takes=False, window=20_000) as client:
        number = client.ask()
        assert client.read(number).code is not None
        assert client.get("/ok").text == "ok"


def test_gso_sends_the_same(quic) -> None:
    gateway = quic("location / { root %%DIR%%; }", "quic_gso on;")
    body = bytes(i % 239 for i in range(400_000))
    (gateway.prefix / "big").write_bytes(body)
    with H3Client(gateway.port) as client:
        assert client.get("/big").body == body


def test_a_head_that_does_not_come_whole_is_refused(quic) -> None:
    gateway = quic(OK, "client_header_timeout 2s;")
    with H3Client(gateway.port) as client:
        half, blocked, none = 0, 4, 8
        client.raw(half, b"\x01\x20ab")                      # HEADERS of 32 bytes, here are two
        client.raw(blocked, b"\x01\x03\x03\x00\x80")         # entry of a table that never comes
        client.raw(none, b"\x21\x00")                        # a frame that means nothing
        for number in (half, blocked, none):
            assert client.read(number).code == 0x10B         # H3_REQUEST_REJECTED
            assert client.responses[number].stopped == 0x10B
        client.quic._local_next_stream_id_bidi = none + 4
        assert client.get("/ok").text == "ok"


def test_a_refused_body_frees_the_encoder(quic) -> None:
    gateway = quic(OK)
    with H3Client(gateway.port) as client:
        cancelled: list[bytes] = []
        assert client.http is not None
        told = client.http._encoder.feed_decoder
        client.http._encoder = Fed(client.http._encoder, cancelled, told)
        number = client.ask("/ok", method="POST", body=b"x", end=False)
        assert client.read(number).text == "ok"
        assert client.responses[number].stopped == 0x100     # H3_NO_ERROR
        client.run(lambda: bytes([0x40 | number]) in b"".join(cancelled))


class Fed:
    """An encoder of QPACK that notes what the decoder says."""

    def __init__(self, encoder, notes: list[bytes], told) -> None:
        self.encode, self.apply_settings = encoder.encode, encoder.apply_settings
        self.notes, self.told = notes, told

    def feed_decoder(self, data: bytes) -> None:
        """Stream cancellations are 01 and the stream's number (RFC 9204 §4.4.2)."""
        self.notes.append(data)
        self.told(data)
