"""What the fuzz targets have in common: a corpus, small mutations, and the loop."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

MOST_FAILURES = 10


class Fuzz:
    """One codec's inputs of one kind: files in `corpus` whose names end in `kind`.

    check(data, chance) holds the promises and gives a note of what happened; an input with a new
    note joins the pool, and with KEEP=1 the corpus. tokens are put into inputs; places(data) says
    where (None: at every byte); what another input lends has `lent` bytes at most.
    """

    def __init__(
        self,
        corpus: Path,
        kind: str,
        tokens: Sequence[bytes],
        check: Callable[[bytes, random.Random], Hashable],
        *,
        most: int = 2000,
        lent: int = 40,
        places: Callable[[bytes], Sequence[int]] | None = None,
    ) -> None:
        self.corpus, self.kind, self.tokens = corpus, kind, tokens
        self.check, self.most, self.lent, self.places = check, most, lent, places

    def saved(self) -> list[bytes]:
        """The corpus, in the order of the file names."""
        return [path.read_bytes() for path in sorted(self.corpus.glob(f"*.{self.kind}"))]

    def save(self, data: bytes) -> Path:
        self.corpus.mkdir(exist_ok=True)
        path = self.corpus / f"{hashlib.sha256(data).hexdigest()[:12]}.{self.kind}"
        path.write_bytes(data)
        return path

    def _place(self, data: bytes, chance: random.Random) -> int:
        if self.places is not None and chance.random() < 0.5:
            return chance.choice(self.places(data))
        return chance.randrange(len(data) + 1)

    def mutated(self, data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
        """The input with a few bytes changed, taken away, doubled or put in."""
        out = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            at = self._place(bytes(out), chance)
            end = min(len(out), at + chance.choice((1, 1, 2, 4, 9, 30)))
            what = chance.randrange(7)
            if what == 0:
                out[at:at] = chance.choice(self.tokens)
            elif what == 1:
                out[at:end] = chance.choice(self.tokens)
            elif what == 2:
                del out[at:end]
            elif what == 3:
                out[at:at] = out[at:end]
            elif what == 4 and at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            elif what == 5 and at < len(out):
                out[at] = chance.randrange(256)
            else:
                other = chance.choice(others)
                cut = self._place(other, chance)
                out[at:at] = other[cut : cut + chance.randrange(self.lent)]
        return bytes(out[: self.most])


def fuzz(fuzzes: Sequence[Fuzz], more: Iterable[bytes] = ()) -> int:
    """`FILE SECONDS [SEED]`: mutate and check until the time is over. `more` joins the pool of
    the first. Exit status: 1 when a promise was broken; such inputs are printed and saved."""
    words = [float(word) for word in sys.argv[1:]]
    seconds, seed = words[0] if words else 10, int(words[1]) if len(words) > 1 else 1
    chance = random.Random(seed)
    pools = {it: it.saved() for it in fuzzes}
    pools[fuzzes[0]] += more
    seen = {(it.kind, it.check(data, chance)) for it in fuzzes for data in pools[it]}
    count = failures = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and failures < MOST_FAILURES:
        it = chance.choice(fuzzes)
        data = it.mutated(chance.choice(pools[it]), pools[it], chance)
        count += 1
        try:
            note = it.kind, it.check(data, chance)
        except Exception as error:
            failures += 1
            print(f"{it.save(data)}: {data!r}\n  {type(error).__name__}: {error}")
            continue
        if note not in seen:
            seen.add(note)
            pools[it].append(data)
            if os.environ.get("KEEP") == "1":
                it.save(data)
    print(f"{count} inputs, {len(seen)} kinds of outcome, {failures} failures, seed {seed}")
    return 1 if failures else 0
