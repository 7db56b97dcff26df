"""How much a QPACK block could become, before it is decoded."""

from __future__ import annotations

import pylsqpack
import pytest

from proxy.quic.blocks import count_dynamic

STATIC, DYNAMIC = b"\xd1", b"\x80"
LINES = {
    "indexed": (STATIC, 0),
    "indexed, dynamic": (DYNAMIC, 1),
    "indexed, far": (b"\xbf\x81\x01", 1),
    "behind the base": (b"\x10", 1),
    "a static name": (b"\x51\x01v", 0),
    "a dynamic name": (b"\x40\x01v", 1),
    "a name behind the base": (b"\x00\x01v", 1),
    "a literal": (b"\x23x-a\x01v", 0),
    "a long literal": (b"\x27\x01x-abcdef\x7f\x01" + b"v" * 128, 0),
}


@pytest.mark.parametrize("name", LINES)
def test_each_kind_of_line(name: str) -> None:
    line, count = LINES[name]
    assert count_dynamic(b"\x02\0" + line) == count
    assert count_dynamic(b"\x02\0" + DYNAMIC + line * 3 + DYNAMIC) == 3 * count + 2
    assert count_dynamic(b"\xff\x01\x7f\x03" + line) == count


def test_what_is_cut_or_no_block_is_no_harm() -> None:
    whole = b"\x02\0" + b"".join(line for line, _ in LINES.values())
    for size in range(len(whole)):
        assert count_dynamic(whole[:size]) <= 5
    assert count_dynamic(b"\xff" * 100) == 0


def test_what_an_encoder_makes() -> None:
    encoder = pylsqpack.Encoder()
    encoder.apply_settings(max_table_capacity=4096, blocked_streams=16)
    fields = [(b":method", b"GET"), (b"x-a", b"some value"), (b"x-b", b"another")]
    counts = []
    for stream in range(0, 16, 4):
        _, block = encoder.encode(stream, fields)
        counts.append(count_dynamic(block))
    assert counts[0] <= counts[-1] <= 2
