"""A bad way and bad clients: what is lost, doubled, garbled or senseless costs nobody else."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import Any

import pytest
from h3client import H3Client

OK = "location /ok { return 200 ok; } location / { root %%DIR%%; }"


class BadWay(H3Client):
    """Of what it sends some is lost, some comes twice, late, garbled or cut."""

    def __init__(self, port: int, seed: int, **more: Any) -> None:
        self.chance = random.Random(seed)
        self.late: list[bytes] = []
        super().__init__(port, **more)

    def flush(self) -> None:
        for data, to in self.quic.datagrams_to_send(now=time.monotonic()):
            what = self.chance.random()
            if what < 0.05:
                continue
            if what < 0.10:
                self.late.append(data)
                continue
            if what < 0.20:
                at = self.chance.randrange(len(data))
                garbled = data[:at] + bytes([data[at] ^ 1 << self.chance.randrange(8)])
                self.sock.sendto(garbled + data[at + 1 :], to)
                self.sock.sendto(data[:at], to)
            if what < 0.30:
                self.sock.sendto(data, to)
            self.sock.sendto(data, to)
            while self.late:
                self.sock.sendto(self.late.pop(), to)


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_way_loses_nothing(quic, upstream, seed: int) -> None:
    gateway = quic(OK + f"location /up {{ client_max_body_size 1m; "
                   f"proxy_pass http://{upstream.address}; }}")  # fmt: skip
    big = bytes(i % 229 for i in range(300_000))
    (gateway.prefix / "big").write_bytes(big)
    with BadWay(gateway.port, seed, timeout_s=40) as client:
        assert client.get("/big").body == big
        assert client.get("/up", method="POST", body=big).status == 200
        assert upstream.last.body == big


@pytest.mark.parametrize("seed", range(4))
def test_streams_of_noise_end_their_own_connection_at_most(quic, seed: int) -> None:
    gateway = quic(OK)
    chance = random.Random(seed)
    kinds = [0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x0D, 0x21, 0x41]
    with H3Client(gateway.port) as other:
        for _ in range(12):
            with H3Client(gateway.port) as client:
                for _ in range(6):
                    number = client.quic.get_next_available_stream_id(
                        is_unidirectional=chance.random() < 0.4
                    )
                    size = chance.randrange(64)
                    noise = bytes([chance.choice(kinds), chance.choice((size, size * 2 & 63, 63))])
                    client.raw(number, noise + chance.randbytes(size), end=chance.random() < 0.5)
                client.step(0.01)
            assert other.get("/ok").text == "ok"


def test_datagrams_to_ids_that_are_not_the_sender_s(quic) -> None:
    gateway = quic(OK)
    with H3Client(gateway.port) as client, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as noise:
        assert client.get("/ok").text == "ok"
        target = client.quic._peer_cid.cid
        for size in (0, 1, 20, 100, 1200):
            for first in (0x40, 0xC0, 0xD0, 0xE0, 0xF0):     # short, Initial, 0-RTT, …
                head = bytes([first])
                if first & 0x80:
                    head += (1).to_bytes(4, "big") + bytes([len(target)])
                noise.sendto(head + target + os.urandom(size), client.to)
        assert client.get("/ok").text == "ok"
        assert client.ended is None


def test_a_flood_of_unknown_versions(quic) -> None:
    gateway = quic(OK)
    with H3Client(gateway.port) as client, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as flood:
        flood.connect(client.to)
        for number in range(300):
            head = b"\xc0" + (0x1A2A3A4A + number).to_bytes(4, "big") + b"\x08" + os.urandom(8)
            flood.send(head + b"\x00" + bytes(1200))
            flood.send(head[:1] + bytes(4) + head[5:])       # version 0: none answers one
            if number % 20 == 0:
                assert client.get("/ok").text == "ok"
        assert client.get("/ok").text == "ok"
        with H3Client(gateway.port) as late:
            assert late.get("/ok").text == "ok"
