"""Datagrams for another worker's connections: each worker has one Unix socket pair.

The master makes a pair for each ledger number; its owner reads one end, everybody writes the
other. A letter is the address key, where it came from, and the datagram. A full box loses the
letter, as a full queue in a router would.
"""

from __future__ import annotations

import contextlib
import struct
from _socket import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.quic.engine import Address

LETTERS_AT_ONCE = 64
MOST_BYTES = 65536 + 512
HEAD = struct.Struct("!BBHII")  # lengths of key and host; port, flow and scope of IPv6


class Mailboxes:
    """`pairs` are (descriptor to read, descriptor to write) by ledger number; `own` is ours."""

    def __init__(self, loop: Any, pairs: Sequence[tuple[int, int]], own: int) -> None:
        self.loop = loop
        self.targets: dict[str, Callable[[bytes, Address, bool], None]] = {}
        self.writers: dict[int, socket] = {}
        self.pairs = pairs
        self.reader: socket | None = None
        if own < len(pairs):
            self.reader = socket(fileno=pairs[own][0])
            self.reader.setblocking(False)
            loop.add_reader(self.reader.fileno(), self.on_readable)

    def open(self, key: str, take: Callable[[bytes, Address, bool], None]) -> None:
        """Letters for that address go to `take`."""
        self.targets[key] = take

    def send(self, owner: int, key: str, data: bytes, address: Address) -> None:
        if owner >= len(self.pairs):
            return
        if owner not in self.writers:
            self.writers[owner] = socket(fileno=self.pairs[owner][1])
            self.writers[owner].setblocking(False)
        with contextlib.suppress(OSError):
            self.writers[owner].send(write_letter(key, data, address))

    def on_readable(self) -> None:
        assert self.reader is not None
        for _ in range(LETTERS_AT_ONCE):
            try:
                letter = self.reader.recv(MOST_BYTES)
            except OSError:
                return
            key, data, address = read_letter(letter)
            take = self.targets.get(key)
            if take is not None:
                take(data, address, True)


def write_letter(key: str, data: bytes, address: Address) -> bytes:
    """One datagram with what its reader must know of it."""
    name, host = key.encode(), address[0].encode()
    flow, scope = address[2:4] if len(address) == 4 else (0, 0)
    return HEAD.pack(len(name), len(host), address[1], flow, scope) + name + host + data


def read_letter(letter: bytes) -> tuple[str, bytes, Address]:
    """(address key, datagram, address as sendto takes it)."""
    name_n, host_n, port, flow, scope = HEAD.unpack_from(letter)
    at = HEAD.size + name_n
    key = letter[HEAD.size : at].decode()
    host = letter[at : at + host_n].decode()
    data = letter[at + host_n :]
    return key, data, (host, port, flow, scope) if ":" in host else (host, port)
