"""What a client that says nothing hears when its worker leaves."""

from __future__ import annotations

import signal
import time

import pytest
from aioquic.quic.connection import QuicConnectionState
from gateway import wait_for
from h3client import H3Client

WHO = "location / { return 200 $pid; }"
ORDERS = {"quit": signal.SIGQUIT, "stop": signal.SIGTERM, "reload": signal.SIGHUP}


def hear(client: H3Client) -> None:
    """Take in what came, answer nothing."""
    client.sock.settimeout(0.2)
    try:
        while True:
            data = client.sock.recv(65536)
            client.quic.receive_datagram(data, client.to, now=time.monotonic())
    except TimeoutError:
        pass
    while (event := client.quic.next_event()) is not None:
        client.note(event)


@pytest.mark.parametrize(("order", "did"), [
    ("quit", "read its answer"), ("stop", "read its answer"), ("reload", "read its answer"),
    ("quit", "nothing"), ("quit", "ask"),
])  # fmt: skip
def test_a_silent_client_is_told_of_the_end(quic, order: str, did: str) -> None:
    gateway = quic(WHO)
    with H3Client(gateway.port) as client:
        if did != "nothing":
            number = client.ask()
        if did == "read its answer":
            assert client.read(number).status == 200
        before = gateway.workers()
        gateway.signal(ORDERS[order])
        wait_for(lambda: not set(before) & set(gateway.workers()), 20)
        hear(client)
        assert client.quic._state == QuicConnectionState.DRAINING
        assert client.quic._close_event.error_code == 0x100


def test_who_speaks_to_a_worker_that_left_is_reset(quic) -> None:
    gateway = quic(WHO)
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        before = gateway.workers()
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: not set(before) & set(gateway.workers()), 20)
        token = client.quic._peer_cid.stateless_reset_token
        client.migrate()                                     # what it was told is lost
        assert is_reset(client, token)


def is_reset(client: H3Client, token: bytes) -> bool:
    """Ask, and again if nothing comes: does the answer end with the token?"""
    client.sock.settimeout(2)
    for _ in range(10):
        client.ask()
        try:
            return client.sock.recv(2048)[-16:] == token
        except TimeoutError:
            continue
    return False
