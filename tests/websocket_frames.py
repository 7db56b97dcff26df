"""What RFC 6455 lets a side of a WebSocket send, and what it forbids: the rules as bytes.

Frames are written unmasked; `masked` makes a client's of them.
"""

from __future__ import annotations

import struct

KEY = b"\x37\xfa\x21\x3d"


def frame(opcode: int, data: bytes = b"", bits: int = 0x80, key: bytes | None = None) -> bytes:
    """One frame; bits: FIN and the reserved ones; key: masked with it."""
    n = len(data)
    masked = 0x80 if key else 0
    if n < 126:
        head = struct.pack("!BB", bits | opcode, masked | n)
    elif n < 65536:
        head = struct.pack("!BBH", bits | opcode, masked | 126, n)
    else:
        head = struct.pack("!BBQ", bits | opcode, masked | 127, n)
    if key is None:
        return head + data
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def close(code: int, reason: bytes = b"", key: bytes | None = None) -> bytes:
    return frame(8, struct.pack("!H", code) + reason, key=key)


Frame = tuple  # (opcode, data, bits)
TEXT, BINARY, MORE, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
OPEN = 0  # bits without FIN
LAST = 0x80

# name, frames as (opcode, payload, bits)
GOOD: list[tuple[str, list[Frame]]] = [
    ("an empty text", [(TEXT, b"", LAST)]),
    ("a text", [(TEXT, b"hello", LAST)]),
    ("bytes that are no text", [(BINARY, b"\xff\xfe\x80", LAST)]),
    ("the longest short payload", [(BINARY, b"a" * 125, LAST)]),
    ("the shortest with two bytes of length", [(BINARY, b"a" * 126, LAST)]),
    ("the longest with two", [(BINARY, b"a" * 65535, LAST)]),
    ("the shortest with eight", [(TEXT, b"a" * 65536, LAST)]),
    ("three fragments", [(TEXT, b"a", OPEN), (MORE, b"b", OPEN), (MORE, b"c", LAST)]),
    ("empty fragments", [(TEXT, b"", OPEN), (MORE, b"", OPEN), (MORE, b"", LAST)]),
    ("a ping between fragments", [(TEXT, b"a", OPEN), (PING, b"x", LAST), (MORE, b"b", LAST)]),
    ("a pong nobody asked for", [(PONG, b"\xff", LAST)]),
    ("a ping as long as it may be", [(PING, b"p" * 125, LAST)]),
    ("a character cut by fragments", [(TEXT, "aé".encode()[:2], OPEN), (MORE, b"\xa9", LAST)]),
    ("of four bytes, cut thrice", [(TEXT, b"\xf0", OPEN), (MORE, b"\x9f", OPEN), (PING, b"", LAST),
                                   (MORE, b"\x98", OPEN), (MORE, b"\x80", LAST)]),
    ("the first and last of each length", [(TEXT, "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff"
                                            "\U00010000\U0010ffff".encode(), LAST)]),
    ("much ASCII, then others", [(TEXT, b"a" * 37 + "é€😀".encode() * 9 + b"b" * 21, LAST)]),
    ("a Close that says nothing", [(CLOSE, b"", LAST)]),
    ("a Close with a code", [(CLOSE, b"\x03\xe8", LAST)]),
    ("a Close with a reason", [(CLOSE, b"\x03\xe9" + "gone é".encode(), LAST)]),
    ("a Close with as much as fits", [(CLOSE, b"\x0f\xa0" + b"r" * 123, LAST)]),
    ("a Close between fragments", [(TEXT, b"\xf0", OPEN), (CLOSE, b"\x03\xe8ok", LAST)]),
]  # fmt: skip
CODES_GOOD = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
CODES_BAD = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
GOOD += [(f"code {code}", [(CLOSE, struct.pack("!H", code), LAST)]) for code in CODES_GOOD]

# name, frames, the code that the last of them has for an answer
BAD: list[tuple[str, list[Frame], int]] = [
    *((f"opcode {n}", [(n, b"", LAST)], 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *((f"bit {bit:#x}", [(TEXT, b"a", LAST | bit)], 1002) for bit in (0x40, 0x20, 0x10)),
    ("a reserved bit of a ping", [(PING, b"", LAST | 0x40)], 1002),
    ("a ping of 126 bytes", [(PING, b"p" * 126, LAST)], 1002),
    ("a pong of 70,000 bytes", [(PONG, b"p" * 70_000, LAST)], 1002),
    ("a Close of 126 bytes", [(CLOSE, b"\x03\xe8" + b"r" * 124, LAST)], 1002),
    ("half a ping", [(PING, b"", OPEN)], 1002),
    ("half a Close", [(CLOSE, b"\x03\xe8", OPEN)], 1002),
    ("a fragment of nothing", [(MORE, b"a", LAST)], 1002),
    ("a fragment behind a whole message", [(TEXT, b"a", LAST), (MORE, b"b", OPEN)], 1002),
    ("a message inside a message", [(TEXT, b"a", OPEN), (TEXT, b"b", LAST)], 1002),
    ("another kind inside", [(TEXT, b"a", OPEN), (PING, b"", LAST), (BINARY, b"b", LAST)], 1002),
    ("half a code", [(CLOSE, b"\x03", LAST)], 1002),
    *((f"code {code}", [(CLOSE, struct.pack("!H", code), LAST)], 1002) for code in CODES_BAD),
    ("a reason that is no text", [(CLOSE, b"\x03\xe8\xff", LAST)], 1007),
    ("a reason that is cut", [(CLOSE, b"\x03\xe8\xe2\x82", LAST)], 1007),
    *((f"no text: {data!r}", [(TEXT, b"0123456789abcdef" + data + b" and more", LAST)], 1007)
      for data in (
          b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2\x20", b"\xc2\xc0", b"\xe0\x9f\xbf",
          b"\xe1\x80\x20", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf",
          b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",
      )),
    ("a text that ends inside a character", [(TEXT, b"a\xe2\x82", LAST)], 1007),
    ("the last fragment does", [(TEXT, b"\xe2", OPEN), (MORE, b"\x82", LAST)], 1007),
    ("an empty one, too late", [(TEXT, b"\xe2\x82", OPEN), (MORE, b"", LAST)], 1007),
    ("a surrogate cut by fragments", [(TEXT, b"\xed", OPEN), (MORE, b"\xa0\x80", LAST)], 1007),
]  # fmt: skip

# heads of a client that say a length in more bytes than it needs, or an impossible one
BAD_LENGTHS = [
    ("125 in two bytes", b"\x82\xfe\x00\x7d"),
    ("0 in two bytes", b"\x82\xfe\x00\x00"),
    ("65535 in eight bytes", b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff"),
    ("more than 63 bits", b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00"),
]


def written(frames: list[Frame], key: bytes | None = None) -> bytes:
    return b"".join(frame(opcode, data, bits, key) for opcode, data, bits in frames)
