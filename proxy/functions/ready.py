"""Does a replica answer? Asked before it gets traffic, again and again, with longer pauses."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

from proxy.upstream.asking import SERVING, ask_health, ask_status, connected

if TYPE_CHECKING:
    from proxy.functions.values import Ready

ACCEPT_INTERVAL_S = 0.002
LOCAL = "127.0.0.1"
ACCEPT_TIMEOUT_S = 1.0


async def wait_ready(addresses: list[str], ready: Ready | None) -> str:
    """The first of the addresses (`unix:PATH` or `HOST:PORT`) that answers well; asked after 1, 2,
    4 … ms, then every `interval`. Without `ready` it is enough to accept a connection.

    Runs until cancelled: the caller bounds it.
    """
    longest_s = ready.interval_ms / 1000 if ready else ACCEPT_INTERVAL_S
    pause_s = 0.001
    while True:
        for address in addresses:
            if await is_ready(address, ready):
                return address
        await asyncio.sleep(min(pause_s, longest_s))
        pause_s *= 2


async def is_ready(address: str, ready: Ready | None) -> bool:
    """Ask once."""
    known = listens(address)
    if known is False or (known and ready is None):
        return known
    try:
        async with asyncio.timeout(ready.timeout_ms / 1000 if ready else ACCEPT_TIMEOUT_S):
            return await _ask(address, ready)
    except (OSError, EOFError, ValueError):  # a timeout is an OSError
        return False


def listens(address: str) -> bool | None:
    """Does somebody listen there? None: not to be known at once. Nearly each look at a replica that
    starts says no, so it must cost little beside the start."""
    if address.startswith("unix:"):
        return None if os.path.exists(address[5:]) else False  # most never listen there
    host, _, port = address.rpartition(":")
    if host != LOCAL:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as it:
        error = it.connect_ex((host, int(port)))
        if error == errno.EINPROGRESS:  # over loopback the answer is here already
            error = it.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return {0: True, errno.ECONNREFUSED: False}.get(error)


async def _ask(address: str, ready: Ready | None) -> bool:
    async with connected(address) as (reader, writer):
        if ready is None:
            return True
        if not ready.path:
            return await ask_health(reader, writer, ready.service, "localhost") == (0, SERVING)
        return 200 <= await ask_status(reader, writer, ready.path, "localhost") < 400
