"""Connection ids: each names the worker that has the connection, and proves that it is ours.

An id is ID_BYTES long: the owner's ledger number (2 bytes), random ones, and a check made with a
key that all workers of one master share, so that an id which a client invented names nobody.
"""

from __future__ import annotations

import os
from hashlib import blake2s
from typing import NamedTuple

ID_BYTES = 12
OWNER_BYTES = 2
CHECK_BYTES = 4
TOKEN_BYTES = 16  # of a stateless reset (RFC 9000 §10.3)
LONGEST_ID = 20
LEAST_RESET, MOST_RESET = 21, 42  # bytes of a stateless reset (RFC 9000 §10.3)


class Beginning(NamedTuple):
    """The part of a packet that no version changes (RFC 8999)."""

    is_long: bool
    target: bytes  # destination connection id
    version: int  # 0 with a short header


def read_beginning(data: bytes) -> Beginning | None:
    """None: this is no QUIC packet."""
    if not data:
        return None
    if not data[0] & 0x80:
        if len(data) < 1 + ID_BYTES:
            return None
        return Beginning(False, data[1 : 1 + ID_BYTES], 0)
    if len(data) < 7 or data[5] > LONGEST_ID or len(data) < 6 + data[5]:
        return None
    return Beginning(True, data[6 : 6 + data[5]], int.from_bytes(data[1:5], "big"))


class Ids:
    """The ids of one worker. `owner` is its number, unique among living workers."""

    def __init__(self, owner: int, key: bytes) -> None:
        self.owner = owner
        self.key = key

    def new(self) -> bytes:
        random = os.urandom(ID_BYTES - OWNER_BYTES - CHECK_BYTES)
        made = self.owner.to_bytes(OWNER_BYTES, "big") + random
        return made + self._check(made)

    def owner_of(self, connection_id: bytes) -> int:
        """Whose it is; -1: nobody's of this master."""
        made, check = connection_id[:-CHECK_BYTES], connection_id[-CHECK_BYTES:]
        if len(connection_id) != ID_BYTES or check != self._check(made):
            return -1
        return int.from_bytes(connection_id[:OWNER_BYTES], "big")

    def reset_token(self, connection_id: bytes) -> bytes:
        """Who knows it may end the connection without its state."""
        return blake2s(
            connection_id, digest_size=TOKEN_BYTES, key=self.key, person=b"reset"
        ).digest()

    def reset(self, connection_id: bytes, size: int) -> bytes | None:
        """What tells a client, in answer to a datagram of `size` bytes, that its connection is no
        more; shorter than that, so that two who reset each other come to an end (§10.3.3)."""
        if size <= LEAST_RESET:
            return None
        random = bytearray(os.urandom(min(size - 1, MOST_RESET) - TOKEN_BYTES))
        random[0] = random[0] & 0x3F | 0x40
        return bytes(random) + self.reset_token(connection_id)

    def _check(self, made: bytes) -> bytes:
        return blake2s(made, digest_size=CHECK_BYTES, key=self.key, person=b"id").digest()
