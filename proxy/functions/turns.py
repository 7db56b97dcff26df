"""How many replicas start at once: beyond, versions take turns."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MOST_STARTING = 64


class Turns:
    """keep(key) is called when the turn of that version has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keep: Callable[[str], None]) -> None:
        self._loop = loop
        self._keep = keep
        self._starting = 0
        self._waiting: deque[str] = deque()

    def take(self, key: str) -> bool:
        """May a replica of that version start now? If not it is asked to `keep` itself later."""
        if self._starting >= MOST_STARTING:
            if key not in self._waiting:
                self._waiting.append(key)
            return False
        self._starting += 1
        return True

    def end(self) -> None:
        """One has started, or never will."""
        self._starting -= 1
        if self._waiting:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting and self._starting < MOST_STARTING:
            self._keep(self._waiting.popleft())
