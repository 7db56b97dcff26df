"""Networks and address ranges as conf text, turned into sorted ranges that do not overlap."""

from __future__ import annotations

from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    Row = tuple[int, int, bytes]


def read_ip(text: str) -> tuple[int, int] | None:
    """(number, bits) of an IPv4 (32) or IPv6 (128) address without brackets, or None."""
    from _socket import AF_INET, AF_INET6, inet_pton  # `socket` itself costs start time

    family = AF_INET6 if ":" in text else AF_INET
    try:
        raw = inet_pton(family, text)
    except (OSError, ValueError):
        return None
    return int.from_bytes(raw, "big"), len(raw) * 8


def read_network(text: str) -> tuple[int, int, int] | None:
    """(first address, prefix length, bits) of `10.0.0.0/8`, `::1`, …; None for what is none.

    Bits behind the prefix are cleared, as nginx does.
    """
    address, slash, tail = text.partition("/")
    found = read_ip(address)
    if found is None:
        return None
    number, bits = found
    prefix = bits
    if slash:
        if not tail.isascii() or not tail.isdigit() or int(tail) > bits:
            return None
        prefix = int(tail)
    return number >> (bits - prefix) << (bits - prefix), prefix, bits


def read_range(text: str) -> tuple[int, int] | None:
    """(first, last) of the IPv4 range `10.0.0.0-10.0.0.9`, or None."""
    first_text, dash, last_text = text.partition("-")
    first, last = read_ip(first_text), read_ip(last_text)
    if not dash or first is None or last is None or first[1] != 32 or last[1] != 32:
        return None
    return (first[0], last[0]) if first[0] <= last[0] else None


def flatten(networks: dict[tuple[int, int], bytes], bits: int) -> list[Row]:
    """Nested networks {(first, prefix): value} as disjoint ranges, the inner one's value first."""
    rows: list[Row] = []
    open_ones: list[tuple[int, bytes]] = []  # last address, value
    at = 0

    def close(upto: int) -> None:
        nonlocal at
        while open_ones and open_ones[-1][0] < upto:
            last, value = open_ones.pop()
            if at <= last:
                rows.append((at, last, value))
                at = last + 1

    for (first, prefix), value in sorted(networks.items()):
        close(first)
        if open_ones and at < first:
            rows.append((at, first - 1, open_ones[-1][1]))
        at = max(at, first)
        open_ones.append((first + (1 << (bits - prefix)) - 1, value))
    close(1 << bits)
    return rows


class RangeList:
    """Disjoint ranges; a new one may lie inside an old one, or be the same, nothing else."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.rows: list[Row] = []

    def add(self, first: int, last: int, value: bytes) -> Row | None:
        """None, or the row that the new range overlaps."""
        at = bisect_left(self.starts, first)
        if at and self.rows[at - 1][1] >= first:
            at -= 1
        if at == len(self.rows) or self.rows[at][0] > last:
            self._put(at, 0, [(first, last, value)])
            return None
        old_first, old_last, old = row = self.rows[at]
        if first < old_first or last > old_last:
            return row
        pieces = [(first, last, value)]
        if old_first < first:
            pieces.insert(0, (old_first, first - 1, old))
        if last < old_last:
            pieces.append((last + 1, old_last, old))
        self._put(at, 1, pieces)
        return None

    def remove(self, first: int, last: int) -> None:
        at = bisect_left(self.starts, first)
        if at < len(self.rows) and self.rows[at][:2] == (first, last):
            self._put(at, 1, [])

    def _put(self, at: int, count: int, rows: list[Row]) -> None:
        self.rows[at : at + count] = rows
        self.starts[at : at + count] = [row[0] for row in rows]
