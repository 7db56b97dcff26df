"""Fuzz target of HPACK: `PYTHONPATH=. python tests/wire/fuzz_hpack.py SECONDS [SEED]`.

Mutates runs of header blocks (each behind two bytes that say how long it is) and holds three
promises: what we read the hpack library reads the same way, what one of the two refuses so does
the other, and the dynamic tables stay alike. An input that breaks one is printed and saved.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from pathlib import Path

import hpack

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


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The input with a few bytes changed, taken away, or put in."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice((1, 1, 2, 8)))
        what = chance.randrange(6)
        if what == 0:
            out[at:at] = chance.choice(TOKENS)
        elif what == 1:
            out[at:end] = chance.choice(TOKENS)
        elif what == 2:
            del out[at:end]
        elif what == 3 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif what == 4 and at < len(out):
            out[at] = chance.randrange(256)
        else:
            other = chance.choice(others)
            cut = chance.randrange(len(other) + 1)
            out[at:at] = other[cut : cut + chance.randrange(40)]
    return bytes(out[:2000])


def saved() -> list[bytes]:
    """The corpus, in the order of the file names."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.blocks"))]


def save(data: bytes) -> Path:
    path = CORPUS / f"{hashlib.sha256(data).hexdigest()[:12]}.blocks"
    path.write_bytes(data)
    return path


def main(seconds: float, seed: int) -> int:
    chance = random.Random(seed)
    pool = saved()
    seen = {check(data) for data in pool}
    count = failures = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and failures < 10:
        data = mutated(chance.choice(pool), pool, chance)
        count += 1
        try:
            note = check(data)
        except Exception as error:
            failures += 1
            print(f"{save(data)}: {data!r}\n  {type(error).__name__}: {error}")
            continue
        if note not in seen:
            seen.add(note)
            pool.append(data)
            if os.environ.get("KEEP") == "1":
                save(data)
    print(f"{count} inputs, {len(seen)} kinds of outcome, {failures} failures, seed {seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    asked = [float(word) for word in sys.argv[1:]]
    sys.exit(main(asked[0] if asked else 10, int(asked[1]) if len(asked) > 1 else 1))
