"""What functions print: the last lines of each, for whoever asks, and for who follows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEPT_LINES = 1000  # of one function
KEPT_BYTES = 256 * 1024
MOST_FUNCTIONS = 4096  # with lines; the one that was silent longest is forgotten first
FOLLOWER_LINES = 1000  # that one who follows may be behind; then it misses some


class Line(NamedTuple):
    """at_s: seconds since 1970. instance: which replica printed it."""

    at_s: float
    instance: str
    text: str


class Journal:
    """Lines by function key."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Line]] = {}
        self._bytes: dict[str, int] = {}
        self._followers: dict[str, set[asyncio.Queue[Line]]] = {}

    def add(self, key: str, instance: str, text: str) -> None:
        line = Line(time.time(), instance, text)
        lines = self._lines.pop(key, None)
        if lines is None:
            lines = deque()
            while len(self._lines) >= MOST_FUNCTIONS:
                self.forget(next(iter(self._lines)))
        self._lines[key] = lines  # to the end of the line
        lines.append(line)
        size = self._bytes.get(key, 0) + len(text)
        while len(lines) > KEPT_LINES or size > KEPT_BYTES:
            size -= len(lines.popleft().text)
        self._bytes[key] = size
        for follower in self._followers.get(key, ()):
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(line)

    def forget(self, key: str) -> None:
        self._lines.pop(key, None)
        self._bytes.pop(key, None)

    def lines(
        self, key: str, *, tail: int = -1, since_s: float = 0, instance: str = ""
    ) -> list[Line]:
        """The last `tail` lines (-1: all that are kept) not older than since_s."""
        found = [
            it for it in self._lines.get(key, ())
            if it.at_s >= since_s and instance in ("", it.instance)
        ]  # fmt: skip
        return found if tail < 0 else found[len(found) - min(tail, len(found)) :]

    async def follow(self, key: str, instance: str = "") -> AsyncIterator[Line]:
        """Lines that come from now on, until the caller ends it."""
        queue: asyncio.Queue[Line] = asyncio.Queue(FOLLOWER_LINES)
        followers = self._followers.setdefault(key, set())
        followers.add(queue)
        try:
            while True:
                line = await queue.get()
                if instance in ("", line.instance):
                    yield line
        finally:
            followers.discard(queue)
            if not followers:
                self._followers.pop(key, None)
