"""When a failed request may go to the next peer: the conditions of proxy_next_upstream.

The decision itself is compiled: next_upstream.pxd, `may_retry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.report import ConfError

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

# The same numbers stand in next_upstream.pxd.
CONDITIONS = {
    "error": 1,
    "timeout": 2,
    "invalid_header": 4,
    "http_500": 8,
    "http_502": 16,
    "http_503": 32,
    "http_504": 64,
    "http_403": 128,
    "http_404": 256,
    "http_429": 512,
    "non_idempotent": 1024,
    "off": 2048,
    "updating": 0,  # speaks of a cache
}
DEFAULT = CONDITIONS["error"] | CONDITIONS["timeout"]


def read_next_upstream(args: list[Token], _block: Block) -> int:
    """Bits of CONDITIONS; `off` leaves no other. Raises ConfError for an unknown word."""
    bits = 0
    for word in args:
        if word.lower() not in CONDITIONS:
            raise ConfError(word, f'invalid value "{word}"')
        bits |= CONDITIONS[word.lower()]
    return CONDITIONS["off"] if bits & CONDITIONS["off"] else bits
