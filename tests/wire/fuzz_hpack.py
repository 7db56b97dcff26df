"""Fuzz target of HPACK: `PYTHONPATH=. python tests/wire/fuzz_hpack.py SECONDS [SEED]`.

Mutates runs of header blocks (each behind two bytes that say how long it is) and holds three
promises: what we read the hpack library reads the same way, what one of the two refuses so does
the other, and the dynamic tables stay alike. An input that breaks one is printed and saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hpack
from fuzzing import Fuzz, fuzz

from proxy.wire.h2_door import Decoder

CORPUS = Path(__file__).parent / "corpus_hpack"
TOKENS = [
    b"\x82", b"\xbe", b"\xbf", b"\x40", b"\x00", b"\x10", b"\x20", b"\x3f\xe1\x1f", b"\x3f",
    b"\x7f",
    b"\xff", b"\x80", b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x40\x01a\x01b", b"\x08\x03200", b"\x7f\x00", b"\xff\xff\xff\xff", b"\x60\x03a=b",
    b"\x0f\x2f\x01a",
]  # fmt: skip


def blocks_of(data: bytes) -> list[bytes]:
    """The blocks of an input; what is left of a length that promises more is a block too."""
    found = []
    while len(data) > 2:
        n = int.from_bytes(data[:2], "big") % 400
        found.append(data[2 : 2 + n])
        data = data[2 + n :]
    return found


def check(data: bytes) -> tuple:
    """Hold the promises for one input; gives a hashable note of what happened."""
    ours = Decoder()
    theirs = hpack.Decoder(max_header_list_size=1 << 24)
    theirs.max_allowed_table_size = 4096
    note: tuple = ()
    for block in blocks_of(data):
        said = ours.read(block)
        try:
            expected = [(bytes(k), bytes(v)) for k, v in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            expected = None
        assert (said != "wrong") == (expected is not None), (block, said, expected)
        if expected is None:
            return ("wrong", *note)
        assert [(k, v) for k, v, _ in said] == expected
        assert ours.entries() == list(theirs.header_table.dynamic_entries)
        assert ours.size <= 4096
        note = (min(len(said), 4), min(len(ours.entries()), 4), bool(block and block[0] & 0x20))
    return note


FUZZ = Fuzz(CORPUS, "blocks", TOKENS, lambda data, chance: check(data))

if __name__ == "__main__":
    sys.exit(fuzz([FUZZ]))
