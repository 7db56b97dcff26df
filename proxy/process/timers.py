"""What the master does later: a heap of moments and calls, no loop of its own."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Calls to make at a moment of the monotonic clock. There is no cancelling: a call asks
    itself whether it still matters."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def add(self, delay_s: float, call: Callable[[], None]) -> None:
        """Make `call` in `delay_s` seconds."""
        self._count += 1
        heapq.heappush(self._heap, (time.monotonic() + delay_s, self._count, call))

    def wait_ms(self) -> int | None:
        """How long poll may sleep; None without a bound."""
        if not self._heap:
            return None
        return max(0, int((self._heap[0][0] - time.monotonic()) * 1000) + 1)

    def run_due(self) -> None:
        """Make the calls whose moment has come."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
