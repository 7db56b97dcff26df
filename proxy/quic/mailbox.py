"""Datagrams for another worker's connections: each worker has one Unix socket pair.

The master makes a pair for each number; its owner reads one end, everybody writes the
other. A letter is the address key, where it came from, and the datagram. A full box loses the
letter, as a full queue in a router would. Who lives holds a lock on a file that all share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from _socket import socket
from hashlib import blake2s
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.quic.engine import Address

LETTERS_AT_ONCE = 64
MOST_BYTES = 65536 + 512
LOCKS_AT = 1024  # behind what else stands in the file
CLAIMS_AT = 1 << 20  # and these behind the locks, of which there are two bytes' worth
CLAIMS = 4096  # handshakes that are told apart: two of one place only lose what this is for
CLAIM_BYTES, TAG_BYTES = 10, 8  # a digest of the id, the owner's number
CLAIM_TRIES = 3  # then another is at work with the same place: do without
FLOCK = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2)
HEAD = struct.Struct("!BBBHII")  # lengths of key, host, local; port, flow and scope of IPv6


class Mailboxes:
    """`pairs` are (descriptor to read, descriptor to write) by number; `own` is ours. `note_fd`:
    a file whose byte LOCKS_AT + number is locked by who has that number."""

    def __init__(
        self, loop: Any, pairs: Sequence[tuple[int, int]], own: int, note_fd: int
    ) -> None:
        self.loop = loop
        self.targets: dict[str, Callable[[bytes, Address, bytes, bool], None]] = {}
        self.writers: dict[int, socket] = {}
        self.pairs = pairs
        self.own = own
        self.reader: socket | None = None
        self.note_fd = note_fd
        with contextlib.suppress(OSError):
            fcntl.lockf(note_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, LOCKS_AT + own)
        if own < len(pairs):
            self.reader = socket(fileno=pairs[own][0])
            self.reader.setblocking(False)
            loop.add_reader(self.reader.fileno(), self.on_readable)

    def open(self, key: str, take: Callable[[bytes, Address, bytes, bool], None]) -> None:
        """Letters for that address go to `take`."""
        self.targets[key] = take

    def is_there(self, owner: int) -> bool:
        """Does a worker with that number live, as far as can be known?"""
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCKS_AT + owner, 1, 0)
        try:
            found = fcntl.fcntl(self.note_fd, fcntl.F_GETLK, asked)
        except OSError:
            return True
        return FLOCK.unpack(found)[0] != fcntl.F_UNLCK

    def claim(self, target: bytes, is_beginning: bool) -> int:
        """Who has the handshake that a client began with this id of its own invention. Nobody
        living: we, if this is where it begins, else -1.

        A ClientHello with post-quantum keys is two datagrams; where two workers read one socket, as
        old and new do while executables change, each may get one."""
        digest = blake2s(target, digest_size=CLAIM_BYTES).digest()
        place, tag = int.from_bytes(digest[TAG_BYTES:], "big") % CLAIMS, digest[:TAG_BYTES]
        at = CLAIMS_AT + place * CLAIM_BYTES
        for _ in range(CLAIM_TRIES):
            try:
                fcntl.lockf(self.note_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            except OSError:
                continue
            try:
                noted = os.pread(self.note_fd, CLAIM_BYTES, at)
                owner = int.from_bytes(noted[TAG_BYTES:], "big")
                is_known = noted[:TAG_BYTES] == tag
                if is_known and (owner == self.own or self.is_there(owner)):
                    return owner
                if is_beginning:
                    os.pwrite(self.note_fd, tag + self.own.to_bytes(2, "big"), at)
                break
            except OSError:
                break
            finally:
                fcntl.lockf(self.note_fd, fcntl.LOCK_UN, 1, at)
        return self.own if is_beginning else -1

    def send(self, owner: int, key: str, data: bytes, address: Address, local: bytes) -> None:
        if owner >= len(self.pairs):
            return
        if owner not in self.writers:
            self.writers[owner] = socket(fileno=self.pairs[owner][1])
            self.writers[owner].setblocking(False)
        with contextlib.suppress(OSError):
            self.writers[owner].send(write_letter(key, data, address, local))

    def on_readable(self) -> None:
        assert self.reader is not None
        for _ in range(LETTERS_AT_ONCE):
            try:
                letter = self.reader.recv(MOST_BYTES)
            except OSError:
                return
            key, data, address, local = read_letter(letter)
            take = self.targets.get(key)
            if take is not None:
                take(data, address, local, True)


def write_letter(key: str, data: bytes, address: Address, local: bytes) -> bytes:
    """One datagram with what its reader must know of it."""
    name, host = key.encode(), address[0].encode()
    flow, scope = address[2:4] if len(address) == 4 else (0, 0)
    head = HEAD.pack(len(name), len(host), len(local), address[1], flow, scope)
    return head + name + host + local + data


def read_letter(letter: bytes) -> tuple[str, bytes, Address, bytes]:
    """(address key, datagram, address as sendto takes it, our address)."""
    name_n, host_n, local_n, port, flow, scope = HEAD.unpack_from(letter)
    at = HEAD.size + name_n
    key = letter[HEAD.size : at].decode()
    host = letter[at : at + host_n].decode()
    at += host_n
    address = (host, port, flow, scope) if ":" in host else (host, port)
    return key, letter[at + local_n :], address, letter[at : at + local_n]
