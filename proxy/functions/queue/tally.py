"""What the queue tells of each function in numbers: counted by the controller, shown by workers.

It stands in shared memory twice, as JSON with a checksum: the older one is written over, so a
reader always finds one that is whole, and a controller that is killed leaves its counts, but those
of the last second, to the next one. No counter goes down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from proxy.base._shm import Zone
from proxy.functions.queue.calls import CANCELLED, DEAD, DONE, QUEUED, RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proxy.functions.queue.calls import House, Queue

    Labels = list[tuple[str, str]]
    Metric = tuple[str, str, str, list[tuple[Labels, float]]]

ZONE = "headrace queue"
SLOT_BYTES = 8 << 20  # 40,000 functions; only the pages that are used cost memory
ZONE_BYTES = 8192 + 2 * SLOT_BYTES  # after a zone's own head
HEAD = struct.Struct("=III")  # serial, bytes, checksum
WRITE_S = 1.0
LOOK_S = 2.0
SHARE = 20  # looking and writing each take a twentieth of the time at most, however much there is
STATES = (QUEUED, RUNNING, DEAD)
OUTCOMES = {DONE: "done", QUEUED: "retried", DEAD: "dead", CANCELLED: "cancelled"}
METRICS = (
    ("accepted", "headrace_queue_accepted_total", "Asynchronous calls that were answered 202."),
    ("refused", "headrace_queue_refused_total", "Asynchronous calls that were refused."),
    ("attempts", "headrace_queue_attempts_total", "Attempts at asynchronous calls, by outcome."),
)


class Tally:
    """All numbers of one controller. zone: a Zone of ZONE_BYTES, or None to count for oneself."""

    def __init__(self, zone: Any = None) -> None:
        self._view = memoryview(zone) if zone is not None else None
        self._serial, rows = read_slots(self._view) if self._view is not None else (0, {})
        self.counts: dict[str, Counter[str]] = {}  # function → "accepted", "refused STATUS", …
        for function, row in rows.items():
            self.counts[function] = Counter(row["counts"])
        self.depths: dict[str, dict[str, int]] = {}
        self.oldest: dict[str, float] = {}
        self._is_changed = False  # since it was written
        self._is_stirred = True  # since the queue was looked at

    # -- counting ---------------------------------------------------------------------------------
    def accept(self, function: str) -> None:
        self._count(function, "accepted")

    def refuse(self, function: str, status: int) -> None:
        self._count(function, f"refused {status}")

    def end(self, function: str, state: str) -> None:
        """An attempt has ended; QUEUED: there will be another."""
        self._count(function, f"attempts {OUTCOMES[state]}")

    def stir(self) -> None:
        """Calls were moved by hand: cancelled, forgotten, replayed."""
        self._is_stirred = True

    def _count(self, function: str, what: str) -> None:
        self.counts.setdefault(function, Counter())[what] += 1
        self._is_changed = self._is_stirred = True

    def sums(self, function: str) -> dict[str, int]:
        """accepted, refused and attempts of a function."""
        found = dict.fromkeys((word for word, _, _ in METRICS), 0)
        for what, n in self.counts.get(function, {}).items():
            found[what.partition(" ")[0]] += n
        return found

    # -- telling ----------------------------------------------------------------------------------
    async def follow(self, queue: Queue, house: House) -> None:
        """Look at the queue now and then, and tell; until it is cancelled."""
        look_at_s = 0.0
        while True:
            now_s = time.monotonic()
            if now_s >= look_at_s and (self._is_stirred or queue.is_shared):
                self._is_stirred = False
                with contextlib.suppress(Exception):  # it is away: what was seen last stays
                    await self.look(queue)
                took_s = time.monotonic() - now_s
                look_at_s = now_s + max(LOOK_S, SHARE * took_s)
            now_s = time.monotonic()
            if self._is_changed:
                self._is_changed = False
                self._forget(house)
                self.write()
            await asyncio.sleep(max(WRITE_S, SHARE * (time.monotonic() - now_s)))

    async def look(self, queue: Queue) -> None:
        """How many wait, run, are dead, and how old the oldest is that has not ended."""
        depths = await queue.counts()
        oldest = await queue.oldest()
        if depths != self.depths or oldest != self.oldest:
            self.depths, self.oldest = depths, oldest
            self._is_changed = True

    def _forget(self, house: House) -> None:
        """Functions that are no more and have left nothing."""
        for function in list(self.counts):
            if function not in self.depths and house.find_function(function) is None:
                del self.counts[function]

    def write(self) -> None:
        """To the shared memory, over the older one of the two."""
        if self._view is None:
            return
        rows: dict[str, dict[str, Any]] = {}
        for function in self.counts.keys() | self.depths.keys():
            depth = self.depths.get(function, {})
            rows[function] = {
                "counts": self.counts.get(function, {}),
                "depth": [depth.get(state, 0) for state in STATES],
                "oldest": self.oldest.get(function, 0),
            }
        data = json.dumps(rows, separators=(",", ":")).encode()
        while len(data) > SLOT_BYTES - HEAD.size:  # those with the longest names are not told
            for function in sorted(rows, key=len)[len(rows) * 9 // 10 :]:
                del rows[function]
            data = json.dumps(rows, separators=(",", ":")).encode()
        self._serial += 1
        at = self._serial % 2 * SLOT_BYTES
        self._view[at : at + HEAD.size] = bytes(HEAD.size)
        self._view[at + HEAD.size : at + HEAD.size + len(data)] = data
        checksum = zlib.crc32(data, self._serial)
        self._view[at : at + HEAD.size] = HEAD.pack(self._serial, len(data), checksum)


def read_slots(view: memoryview) -> tuple[int, dict[str, dict[str, Any]]]:
    """(serial, {function: row}) of the newest that is whole; (0, {}) where none is."""
    heads = [(*HEAD.unpack_from(view, at), at) for at in (0, SLOT_BYTES)]
    for serial, size, checksum, at in sorted(heads, reverse=True):
        if not serial or size > SLOT_BYTES - HEAD.size:
            continue
        data = bytes(view[at + HEAD.size : at + HEAD.size + size])
        if zlib.crc32(data, serial) == checksum:
            return serial, json.loads(data)
    return 0, {}


def queue_numbers(zone: Any) -> list[Metric]:
    """(metric, type, help, [(labels, value)]) of a Zone that a Tally writes; a worker asks."""
    rows = read_slots(memoryview(zone))[1] if zone is not None else {}
    return [*gauges(rows), *counters(rows)] if rows else []


def gauges(rows: Mapping[str, dict[str, Any]]) -> Iterator[Metric]:
    depths: list[tuple[Labels, float]] = []
    ages: list[tuple[Labels, float]] = []
    for function, row in sorted(rows.items()):
        label = ("function", function)
        depths += [
            ([label, ("state", state)], n) for state, n in zip(STATES, row["depth"], strict=True)
        ]
        age_s = time.time() - row["oldest"] if row["oldest"] else 0.0
        ages.append(([label], round(max(age_s, 0.0), 3)))
    yield "headrace_queue_calls", "gauge", "Asynchronous calls; dead: dead letters.", depths
    text = "Age of the oldest call that has not ended."
    yield "headrace_queue_oldest_seconds", "gauge", text, ages


def counters(rows: Mapping[str, dict[str, Any]]) -> Iterator[Metric]:
    second = {"refused": "status", "attempts": "outcome"}
    for kind, metric, text in METRICS:
        found: list[tuple[Labels, float]] = []
        for function, row in sorted(rows.items()):
            for what, n in sorted(row["counts"].items()):
                word, _, value = what.partition(" ")
                if word == kind:
                    more = [(second[kind], value)] if value else []
                    found.append(([("function", function), *more], n))
        if found:
            yield metric, "counter", text, found


def find_zone(shared: Mapping[str, int]) -> Any:
    """The Zone among a seat's descriptors, or None."""
    fd = shared.get(ZONE)
    return Zone.attach(fd) if fd is not None else None


def queue_zones(model: Any) -> dict[str, tuple[int, str]]:
    """{name: (bytes, kind)}, for the master."""
    return {ZONE: (ZONE_BYTES, "other")} if model.find("http") else {}
