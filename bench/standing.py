"""What a proxy costs while nothing happens: memory at start and per idle connection, start time."""

from __future__ import annotations

import time

from load import idle_connections
from meter import rss_bytes
from peers import Process

SETTLE_S = 0.7


def start_ms(peer: Process, upstream: int) -> tuple[float, float]:
    """One start of the smallest conf: (ms from exec to the first accept, MiB resident after)."""
    peer.start("small", upstream)
    try:
        took_ms = peer.start_ms
        time.sleep(SETTLE_S)
        return took_ms, rss_bytes(peer.pid) / 2**20
    finally:
        peer.stop()


def idle_kib(peer: Process, upstream: int, count: int) -> float:
    """KiB of resident memory that each of `count` idle keep-alive connections adds."""
    peer.start("main", upstream)
    warm, idle = [], []
    try:
        port = peer.ports["bare"]
        warm = idle_connections(port, 200)
        time.sleep(SETTLE_S)
        before = rss_bytes(peer.pid)
        idle = idle_connections(port, count)
        time.sleep(SETTLE_S)
        return (rss_bytes(peer.pid) - before) / count / 1024
    finally:
        for sock in warm + idle:
            sock.close()
        peer.stop()
