"""Looks over a QPACK block before it is decoded: how much could it become?"""

from __future__ import annotations

MOST_BYTES_OF_LENGTH = 5  # of an integer behind its prefix: more than any length here needs


def count_dynamic(block: bytes) -> int:
    """How many field lines refer to the dynamic table, each up to a whole entry of it (RFC 9204
    §4.5). Of a block that is cut short: those that are there; its decoder will refuse it."""
    count = 0
    try:
        _, at = _read_int(block, 0, 8)
        _, at = _read_int(block, at, 7)
        while at < len(block):
            first = block[at]
            if first & 0x80:  # indexed; 0x40: static
                count += not first & 0x40
                _, at = _read_int(block, at, 6)
            elif first & 0x40:  # a name of a table, 0x10: the static one
                count += not first & 0x10
                _, at = _read_int(block, at, 4)
                at = _skip_text(block, at, 7)
            elif first & 0x20:  # literal name
                at = _skip_text(block, at, 3)
                at = _skip_text(block, at, 7)
            elif first & 0x10:  # indexed behind the base
                count += 1
                _, at = _read_int(block, at, 4)
            else:  # a name behind the base
                count += 1
                _, at = _read_int(block, at, 3)
                at = _skip_text(block, at, 7)
    except (IndexError, ValueError):
        pass
    return count


def _read_int(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """(value, offset behind it) of a prefixed integer (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for i in range(MOST_BYTES_OF_LENGTH):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << 7 * i
        if not byte & 0x80:
            return value, at
    raise ValueError("the integer is too long")


def _skip_text(block: bytes, at: int, bits: int) -> int:
    size, at = _read_int(block, at, bits)
    return at + size
