"""TLS session tickets of QUIC: sealed, so that any worker resumes what another began.

Without ssl_session_ticket_key they are sealed with a key of the time that all workers derive from
the one which they share, over reloads and a new executable.
"""

from __future__ import annotations

import datetime
import os
import struct
import time
from hashlib import blake2s
from typing import TYPE_CHECKING

from aioquic.tls import CipherSuite, NewSessionTicket, SessionTicket
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Sequence

LIFE_MOST_S = 7 * 86400  # RFC 8446 §4.6.1
MAX_EARLY_DATA = 0xFFFFFFFF  # RFC 9001 §4.6.1: any other would be wrong
HINT_BYTES, NONCE_BYTES = 4, 12
EARLY_MS = 10_000  # early data is as old as its ticket says, but for that (RFC 8446 §8.3)
HEAD = struct.Struct("!QIHB")  # begun, in ms; age_add; cipher suite; length of the server name


class Tickets:
    """For one server. `context`: what a session is bound to beside its name: certificate, limits.
    `files`: of ssl_session_ticket_key, the first seals. `life_s`: how long one is good.
    `is_early`: clients may send early data (0-RTT) with one."""

    def __init__(
        self, key: bytes, context: bytes, files: Sequence[bytes], life_s: int, is_early: bool
    ) -> None:
        self.key = key
        self.context = context
        self.files = {_digest(it, b"hint")[:HINT_BYTES]: _digest(it, b"seal") for it in files}
        self.is_early = is_early
        self.life_s = min(max(life_s, 1), LIFE_MOST_S)

    def new(self) -> NewSessionTicket:
        """One that is still to be sealed."""
        return NewSessionTicket(
            ticket_lifetime=self.life_s,
            ticket_age_add=int.from_bytes(os.urandom(4), "big"),
            max_early_data_size=MAX_EARLY_DATA if self.is_early else None,
        )

    def seal(self, session: SessionTicket, name: str) -> bytes:
        """What the client brings again."""
        now_ms = time.time_ns() // 1_000_000
        hint, key = next(
            iter(self.files.items()), self._of_period(now_ms // 1000 // self.life_s)
        )
        nonce, host = os.urandom(NONCE_BYTES), name.encode()[:255]
        head = HEAD.pack(now_ms, session.age_add, session.cipher_suite, len(host))
        text = head + host + session.resumption_secret
        return hint + nonce + AESGCM(key).encrypt(nonce, text, self.context)

    def open(self, ticket: bytes, name: str) -> SessionTicket | None:
        """The session that was sealed for that name and is still good, or None."""
        found = self._read(ticket, name)
        return found[0] if found is not None else None

    def is_fresh(self, ticket: bytes, hidden_age: int, name: str) -> bool:
        """Was a ClientHello that brings it sent just now? Else somebody may say again what he saw
        (RFC 8446 §8.3), or it was long on its way. hidden_age: obfuscated_ticket_age."""
        found = self._read(ticket, name)
        if found is None:
            return False
        session, begun_ms = found
        age_ms = (hidden_age - session.age_add) & 0xFFFFFFFF
        return abs(time.time_ns() // 1_000_000 - begun_ms - age_ms) <= EARLY_MS

    def _read(self, ticket: bytes, name: str) -> tuple[SessionTicket, int] | None:
        """(the session, when it was sealed, in ms), or None."""
        now_ms = time.time_ns() // 1_000_000
        now_s = now_ms // 1000
        hint, nonce = ticket[:HINT_BYTES], ticket[HINT_BYTES : HINT_BYTES + NONCE_BYTES]
        keys = self.files or dict(self._of_period(now_s // self.life_s - it) for it in (0, 1))
        if hint not in keys or len(nonce) != NONCE_BYTES:
            return None
        try:
            sealed = ticket[HINT_BYTES + NONCE_BYTES :]
            text = AESGCM(keys[hint]).decrypt(nonce, sealed, self.context)
        except InvalidTag:
            return None
        begun_ms, age_add, suite, size = HEAD.unpack_from(text)
        host, secret = text[HEAD.size : HEAD.size + size], text[HEAD.size + size :]
        if host != name.encode()[:255] or not 0 <= now_ms - begun_ms <= self.life_s * 1000:
            return None
        begun = datetime.datetime.fromtimestamp(begun_ms / 1000, datetime.UTC)
        session = SessionTicket(
            age_add=age_add,
            cipher_suite=CipherSuite(suite),
            not_valid_before=begun,
            not_valid_after=begun + datetime.timedelta(seconds=self.life_s),
            resumption_secret=secret,
            server_name=name,
            ticket=b"",
        )
        return session, begun_ms

    def _of_period(self, number: int) -> tuple[bytes, bytes]:
        """(hint, key) of a while as long as a ticket is good."""
        secret = self.key + number.to_bytes(8, "big")
        return _digest(secret, b"hint")[:HINT_BYTES], _digest(secret, b"seal")


def _digest(secret: bytes, use: bytes) -> bytes:
    return blake2s(secret, person=use).digest()
