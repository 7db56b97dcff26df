"""A ClientHello that is larger than a datagram, as those with post-quantum keys are."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket

import pytest
from aioquic.quic.packet import QuicPacketType
from gateway import Gateway, wait_for
from h3client import LARGE_HELLO, H3Client, Parts

WHO = "location / { return 200 $pid; }"
PIDFD_GETFD = 438  # syscall(2), of each architecture
DETACH_REUSEPORT_BPF = 68  # socket(7)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_datagrams(quic, order: tuple[int, int]) -> None:
    gateway = quic(WHO)
    with Parts(gateway.port) as client:
        for i in order:
            client.sock.sendto(client.parts[i], client.to)
        client.hear()
        assert client.get_when_ready().status == 200


@pytest.mark.parametrize("size", [LARGE_HELLO, 5000])
def test_with_a_retry(quic, size: int) -> None:
    gateway = quic(WHO, "quic_retry on;")
    with H3Client(gateway.port, more_hello=size) as client:
        assert client.packets[0] == QuicPacketType.RETRY
        assert client.get().status == 200


def stop_steering(gateway: Gateway) -> None:
    """As where the kernel refuses the program by which an id chooses its worker's socket: now
    addresses do."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = gateway.process.pid
    for name in os.listdir(f"/proc/{pid}/fd"):
        handle = os.pidfd_open(pid)
        fd = libc.syscall(PIDFD_GETFD, handle, int(name), 0)
        os.close(handle)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            with socket.socket(fileno=fd) as sock:
                if sock.type == socket.SOCK_DGRAM and sock.family == socket.AF_INET:
                    with contextlib.suppress(FileNotFoundError):  # there is none any more
                        sock.setsockopt(socket.SOL_SOCKET, DETACH_REUSEPORT_BPF, 0)
        else:
            os.close(fd)


@pytest.mark.parametrize("is_steered", [True, False])
def test_each_datagram_may_come_to_another_worker(quic, is_steered: bool) -> None:
    gateway = quic(WHO, main="worker_processes 3;")
    wait_for(lambda: len(gateway.workers()) == 3)
    for i in range(12):  # from another port, a datagram falls to any worker's socket
        if not is_steered:  # again: the master steers anew whenever a child is born
            stop_steering(gateway)
        with Parts(gateway.port) as client, client.open_socket() as elsewhere:
            socks = (client.sock, elsewhere) if i % 2 else (elsewhere, client.sock)
            for part, sock in zip(client.parts, socks, strict=True):
                sock.sendto(part, client.to)
            client.hear(elsewhere)
            assert client.get_when_ready().status == 200
