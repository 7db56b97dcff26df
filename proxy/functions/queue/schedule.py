"""Which calls run now: those that are due, within each function's parallelism and the whole's.

It knows of each function only when its next call is due. Functions take turns, so that a long
backlog of one does not hold up another.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from proxy.functions.queue.calls import CANCELLED, QUEUED, Outcome, Result
from proxy.functions.queue.writer import NotWritten

if TYPE_CHECKING:
    from proxy.functions.queue.calls import Call

MOST_AT_ONCE = 256  # functions looked at in one claim
PAUSE_S = 1.0  # after a claim that failed
AGAIN_MS = 1000  # after an attempt that broke in our own hands


class Claimer(Protocol):
    """Whose calls they are."""

    async def claim(
        self, wants: dict[str, int]
    ) -> tuple[list[tuple[int, Call]], dict[str, int]]: ...
    async def run(self, call: Call) -> Outcome: ...
    async def finish(self, seq: int, call: Call, outcome: Outcome) -> None: ...
    def parallelism_of(self, function: str) -> int: ...


class Schedule:
    """Runs at most `parallelism` calls at a time."""

    def __init__(self, claimer: Claimer, parallelism: int) -> None:
        self.claimer = claimer
        self.parallelism = parallelism
        self.running: dict[int, asyncio.Task[Outcome] | None] = {}  # by seq; None: not begun yet
        self._busy: Counter[str] = Counter()
        self._hot: dict[str, None] = {}  # functions to look at, in turn
        self._full: set[str] = set()  # … once one of their calls has ended
        self._later: list[tuple[int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._cancelled: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._is_closing = False

    def open(self) -> None:
        self._claiming = asyncio.get_running_loop().create_task(self._claim_forever())

    async def close(self, grace_s: float) -> None:
        """Claim no more; after `grace_s` let go of what still runs, without an end."""
        self._is_closing = True
        self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._claiming is not None:
            await self._claiming
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def mark(self, function: str, due_ms: int) -> None:
        """It has a call that is due then."""
        if due_ms <= time.time() * 1000:
            if function not in self._hot:
                self._hot[function] = None
                self._wake.set()
        elif not self._later or (due_ms, function) not in self._later[:1]:
            heapq.heappush(self._later, (due_ms, function))
            if self._later[0][0] == due_ms:
                self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            wait_s = max(self._later[0][0] / 1000 - time.time(), 0) + 0.001
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(wait_s, 3600), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.time() * 1000
        while self._later and self._later[0][0] <= now:
            self._hot[heapq.heappop(self._later)[1]] = None
        self._wake.set()
        self._set_timer()

    def cancel(self, seq: int) -> None:
        """A running one ends now, or as soon as it begins."""
        self._cancelled.add(seq)
        task = self.running.get(seq)
        if task is not None:
            task.cancel()

    # -- claiming -------------------------------------------------------------------------------
    async def _claim_forever(self) -> None:
        while not self._is_closing:
            await self._wake.wait()
            self._wake.clear()
            try:
                while not self._is_closing and (wants := self._wants()):
                    await self._claim(wants)
            except NotWritten:
                await asyncio.sleep(PAUSE_S)
                self._wake.set()

    def _wants(self) -> dict[str, int]:
        """How many of whom. Functions that cannot run one more leave the turn until they can."""
        room = self.parallelism - len(self.running)
        wants: dict[str, int] = {}
        if room <= 0:
            return wants
        share = max(room // min(len(self._hot) or 1, MOST_AT_ONCE), 1)
        for function in list(itertools.islice(self._hot, MOST_AT_ONCE)):
            free = self.claimer.parallelism_of(function) - self._busy[function]
            if free <= 0:
                del self._hot[function]
                self._full.add(function)
                continue
            wants[function] = min(free, share, room)
            room -= wants[function]
            if room == 0:
                break
        return wants

    async def _claim(self, wants: dict[str, int]) -> None:
        for function in wants:  # who is marked meanwhile comes back behind the others
            del self._hot[function]
        try:
            calls, following = await self.claimer.claim(wants)
        except NotWritten:
            self._hot.update(dict.fromkeys(wants))
            raise
        for seq, call in calls:
            self.running[seq] = None
            self._busy[call.function] += 1
            task = asyncio.get_running_loop().create_task(self._run(seq, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for function, due_ms in following.items():
            self.mark(function, due_ms)

    # -- running --------------------------------------------------------------------------------
    async def _run(self, seq: int, call: Call) -> None:
        try:
            await self.claimer.finish(seq, call, await self._attempt(seq, call))
        finally:
            self.running.pop(seq, None)
            self._cancelled.discard(seq)
            self._busy[call.function] -= 1
            if not self._busy[call.function]:
                del self._busy[call.function]
            if call.function in self._full:
                self._full.discard(call.function)
                self._hot[call.function] = None
            if self._hot:
                self._wake.set()

    async def _attempt(self, seq: int, call: Call) -> Outcome:
        if seq not in self._cancelled:
            attempt = asyncio.get_running_loop().create_task(self.claimer.run(call))
            self.running[seq] = attempt
            try:
                await asyncio.wait((attempt,))
            except asyncio.CancelledError:
                attempt.cancel()
                raise
            if not attempt.cancelled():
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                why = f"{type(error).__name__}: {error}"
                return Outcome(QUEUED, Result(0, error=why), AGAIN_MS)
        with contextlib.suppress(KeyError):
            self._cancelled.remove(seq)
        return Outcome(CANCELLED, Result(0, error="cancelled"))
