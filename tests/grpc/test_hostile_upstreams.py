"""Upstreams of HTTP/2 that break rules, refuse or flood: bounded, and nobody else notices."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from gateway import Gateway
from h2client import H2Client
from h2upstream import GOAWAY, HEADERS, PING, RST, H2Upstream, frame
from services import Calls, Server

from proxy.wire.h2_door import write_field, write_status


@pytest.fixture
def pair(headrace) -> Iterator[Callable[..., tuple[Gateway, H2Upstream]]]:
    """A gateway with a bad upstream below /bad/ and a good one elsewhere."""
    made: list[H2Upstream] = []
    with Server() as good:

        def make(answer: Callable[[int], bytes], first: bytes = b"") -> tuple[Gateway, H2Upstream]:
            made.append(H2Upstream(answer, first))
            return headrace(f"""server {{ listen %%PORT%%; http2 on;
                location / {{ grpc_pass {good.address}; }}
                location /bad/ {{ grpc_pass {made[-1].address}; grpc_read_timeout 5s; }} }}"""
            ), made[-1]  # fmt: skip

        yield make
    for it in made:
        it.close()


CASES: dict[str, tuple[Callable[[int], bytes], bytes]] = {
    "refuses all": (lambda n: frame(RST, 0, n, struct.pack(">I", 7)), b""),
    "looks at nothing": (lambda n: frame(GOAWAY, 0, 0, bytes(8)), b""),
    "complains": (lambda n: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11)), b""),
    "pings without end": (lambda n: b"", frame(PING, 0, 0, bytes(8)) * 20000),
    "an endless head": (lambda n: frame(HEADERS, 0, n, bytes(10000)) + frame(
        9, 0, n, bytes(10000)) * 20, b""),
    "a reset behind the head": (lambda n: frame(HEADERS, 4, n, write_status(200) + write_field(
        b"a", b"b" * 4000) * 4) + frame(RST, 0, n, struct.pack(">I", 1)), b""),
    "data without a head": (lambda n: frame(0, 1, n, b"x"), b""),
    "more than the window": (lambda n: frame(HEADERS, 4, n, write_status(200)) + frame(
        0, 0, n, bytes(16384)) * 5000, b""),
    "takes its answer back": (lambda n: frame(HEADERS, 5, n, write_status(200) + write_field(
        b"content-type", b"application/grpc") + write_field(b"grpc-status", b"0"))
        + frame(RST, 0, n, struct.pack(">I", 8)), b""),
    "takes its trailers back": (lambda n: frame(HEADERS, 4, n, write_status(200) + write_field(
        b"content-type", b"application/grpc")) + frame(HEADERS, 5, n, write_field(
            b"grpc-status", b"0")) + frame(RST, 0, n, bytes(4)) * 2, b""),
    "no HTTP/2": (lambda n: b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_upstream_fails_its_own_call(pair, name: str) -> None:
    gateway, upstream = pair(*CASES[name])
    with H2Client(gateway.port, takes=False) as client, Calls(gateway.port) as calls:
        number = client.ask("/bad/x", method="POST", body=bytes(5), fields=[
            ("content-type", "application/grpc"), ("te", "trailers")])  # fmt: skip
        assert calls.echo(b"good", timeout=20) == b"good"
        if name == "more than the window":                    # it is held, and then refused
            client.step()
        else:
            found = client.read(number)
            status = found.get("grpc-status") or dict(found.trailers).get("grpc-status")
            assert status == "14", found
        assert calls.echo(b"good", timeout=20) == b"good"
    assert 0 <= upstream.asked <= 20
    assert len(gateway.workers()) == 1
    assert "exited on signal" not in gateway.said
