"""proxy_upload_rate and proxy_download_rate."""

from __future__ import annotations

import socket
import time

import pytest
from peers import Peer, echo


@pytest.mark.parametrize("setting, least_s", [
    ("proxy_download_rate 100k;", 2), ("proxy_upload_rate 100k;", 2),
    ("proxy_upload_rate $rate; proxy_download_rate 0;", 2), ("proxy_upload_rate $none;", 0),
])  # fmt: skip
def test_a_second_s_bytes_a_second(headrace, setting, least_s) -> None:
    to = Peer(echo)
    gateway = headrace(
        main='stream { map $remote_addr $rate { default 100k; } map $remote_addr $none { default 0;'
        f" }} server {{ listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{to.port}; {setting} }} }}"
    )
    data = bytes(range(256)) * 1200  # 300k
    began = time.monotonic()
    got = b""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(data)
        while len(got) < len(data):
            got += sock.recv(65536)
    assert got == data
    # the first second's bytes come at once: the bound that the conf names
    assert time.monotonic() - began >= least_s * 0.9
    to.close()


def test_a_session_that_waits_for_its_rate_may_end(headrace) -> None:
    to = Peer(echo)
    gateway = headrace(
        main="stream { server { listen 127.0.0.1:%%PORT%%; proxy_download_rate 1k;"
        f" proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.sendall(b"x" * 50_000)
            assert sock.recv(65536)
    time.sleep(0)
    gateway.reload()
    assert gateway.process.poll() is None
    to.close()
