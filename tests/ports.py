"""Ports for servers that are told theirs, or that go and come again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from pathlib import Path

LOWEST = 10_000
HERE = "127.0.0.1"


def candidates() -> itertools.cycle[int]:
    """Below those that the kernel gives to clients: none of theirs is in the way when a server
    binds later. Each worker of the tests has a part of them, and begins somewhere in it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    highest = first if first > 2 * LOWEST else 32_768
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    count = max(1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    part = list(range(LOWEST, highest))[number % count :: count]
    at = random.randrange(len(part))
    return itertools.cycle(part[at:] + part[:at])


PORTS = candidates()


def is_free(port: int) -> bool:
    """Of TCP and of UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            sock.bind((HERE, port))
            continue
        return False
    return True


def free_port() -> int:
    """A port that nobody has now, another each time."""
    return next(port for port in PORTS if is_free(port))
