"""A replica's address as a peer."""

from __future__ import annotations

from proxy.upstream._balance import Peer
from proxy.upstream.servers import pack_ip, pack_unix

FAIL_TIMEOUT_MS = 1000  # a replica that failed is asked again after that


def peer_of(address: str) -> Peer:
    """A Peer for `unix:PATH` or `IP:PORT`."""
    if address.startswith("unix:"):
        return Peer(*pack_unix(address[5:]), max_fails=1, fail_timeout_ms=FAIL_TIMEOUT_MS)
    host, _, port = address.rpartition(":")
    return Peer(*pack_ip(host, int(port)), max_fails=1, fail_timeout_ms=FAIL_TIMEOUT_MS)
