"""A broker's SUBACK to the part of a SUBSCRIBE that it was asked gets the rest of its codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def merge_suback(
    packet: bytes, version: int, number: int, codes: Sequence[int | None]
) -> bytes | None:
    """The SUBACK with `codes` in their order, where None stands for the broker's next one; None: it
    has another packet id. packet: a SUBACK, whole. Raises ValueError."""
    _, at = read_length(packet, 1)
    if int.from_bytes(packet[at : at + 2], "big") != number:
        return None
    begin = at + 2
    if version == 5:
        n, begin = read_length(packet, begin)
        begin += n
    said = packet[begin:]
    if begin > len(packet) or len(said) != codes.count(None):
        raise ValueError("codes")
    asked = iter(said)
    body = packet[at:begin] + bytes(next(asked) if it is None else it for it in codes)
    return packet[:1] + put_length(len(body)) + body


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """(a Variable Byte Integer, the place behind it). Raises ValueError."""
    n = 0
    for shift in range(0, 28, 7):
        if at >= len(data):
            break
        byte = data[at]
        n |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return n, at
    raise ValueError("length")


def put_length(n: int) -> bytes:
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)
