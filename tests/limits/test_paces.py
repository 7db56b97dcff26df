"""Paces: as a plain model of two token buckets, for all who share the zone."""

from __future__ import annotations

import os
import random

from proxy.base._shm import Zone
from proxy.limits._paces import PaceZone

MS = 1_000_000  # ns


def zone(size: int = 1 << 20) -> PaceZone:
    return PaceZone(Zone.create("one", size, "other"))


class Model:
    """Two numbers a key: when each bucket is full again."""

    def __init__(self) -> None:
        self.due: dict[bytes, list[int]] = {}

    def take(self, key: bytes, paces: list[tuple[int, int]], now_ms: int) -> int:
        now, due = now_ms * MS, self.due.setdefault(key, [0, 0])
        wait = 0
        for i, (cost, burst) in enumerate(paces):
            if cost and due[i] > now:
                wait = max(wait, due[i] - now - max(burst - cost, 0))
        if wait <= 0:
            for i, (cost, _) in enumerate(paces):
                if cost:
                    due[i] = max(due[i], now) + cost
        return -(-max(wait, 0) // MS)


def test_a_burst_passes_and_then_the_rate_counts() -> None:
    z, pace = zone(), [(100 * MS, 300 * MS), (0, 0)]
    assert [z.take(b"k", pace, 1000) for _ in range(4)] == [0, 0, 0, 100]
    assert z.take(b"k", pace, 1099) == 1
    assert z.take(b"k", pace, 1100) == 0
    assert z.take(b"other", pace, 1100) == 0


def test_what_costs_more_than_its_burst_comes_when_the_bucket_is_full() -> None:
    z, large = zone(), [(0, 0), (500 * MS, 100 * MS)]
    assert z.take(b"k", [(0, 0), (50 * MS, 100 * MS)], 1000) == 0
    assert z.take(b"k", large, 1000) == 50
    assert z.take(b"k", large, 1050) == 0
    assert z.take(b"k", [(0, 0), (50 * MS, 100 * MS)], 1050) == 450


def test_nothing_is_taken_of_one_where_the_other_is_empty() -> None:
    z = zone()
    assert z.take(b"k", [(0, 0), (100 * MS, 100 * MS)], 1) == 0
    assert z.take(b"k", [(100 * MS, 100 * MS), (100 * MS, 100 * MS)], 1) == 100
    assert z.take(b"k", [(100 * MS, 100 * MS), (0, 0)], 1) == 0


def test_as_the_model() -> None:
    draw = random.Random(7)
    z, model, now = zone(), Model(), 1000
    for _ in range(5000):
        now += draw.choice((0, 0, 1, 5, 50, 5000))
        key = b"k%d" % draw.randrange(5)
        paces = [(draw.choice((0, 3, 7 * MS, 90 * MS)), draw.choice((1, 20 * MS, 1000 * MS)))
                 for _ in range(2)]  # fmt: skip
        assert z.take(key, paces, now) == model.take(key, paces, now)
    assert z.broken() is None


def test_who_was_away_longest_is_forgotten_and_the_rest_stays_whole() -> None:
    z, pace = zone(64 * 1024), [(1000 * MS, 1000 * MS), (0, 0)]
    keys = [os.urandom(24) for _ in range(5000)]
    for key in keys:
        assert z.take(key, pace, 1) == 0
    assert z.broken() is None
    assert z.take(keys[-1], pace, 1) == 1000
    assert z.take(keys[0], pace, 1) == 0


def test_the_newest_holder_has_it_and_a_forgotten_one_comes_back() -> None:
    z = zone(64 * 1024)
    z.hold(b"k", 5)
    assert z.holds(b"k", 5)
    z.hold(b"k", 6)
    assert not z.holds(b"k", 5) and z.holds(b"k", 6)
    for n in range(5000):
        z.hold(b"%d" % n, 1)
    assert z.holds(b"k", 6)
    assert not z.holds(b"k", 5)


def test_processes_share_it() -> None:
    z, pace = zone(), [(1 * MS, 1000 * MS), (0, 0)]
    read, write = os.pipe()
    for _ in range(4):
        if os.fork() == 0:
            taken = sum(z.take(b"k", pace, 10) == 0 for _ in range(500))
            os.write(write, taken.to_bytes(4, "big"))
            os._exit(0)
    for _ in range(4):
        os.wait()
    counts = os.read(read, 64)
    assert sum(int.from_bytes(counts[i : i + 4], "big") for i in range(0, 16, 4)) == 1000
