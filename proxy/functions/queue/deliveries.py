"""Callbacks of the SQLite queue: those that are due, a few at a time, until they are delivered or
given up. Which ones are left stands in the file, so that none is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from proxy.functions.queue.calls import Call, Result
from proxy.functions.queue.writer import NotWritten

if TYPE_CHECKING:
    import sqlite3

    from proxy.functions.queue.callback import Callbacks
    from proxy.functions.queue.writer import Writer

PARALLELISM = 16
LONGEST_SLEEP_S = 5.0
DUE = """
SELECT seq, head, attempts, result, result_body, callback_attempts FROM calls
WHERE callback_due_ms <= ? ORDER BY callback_due_ms LIMIT ?
"""


class Deliveries:
    """Delivers once `is_alone`: two controllers would call twice."""

    def __init__(self, callbacks: Callbacks, results_keep_ms: int) -> None:
        self.callbacks = callbacks
        self.results_keep_ms = results_keep_ms
        self.writer: Writer
        self._active: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._round: asyncio.Task[None] | None = None
        self.is_alone = False

    def open(self, writer: Writer) -> None:
        self.writer = writer
        self._round = asyncio.get_running_loop().create_task(self._go_round())

    async def close(self) -> None:
        tasks = [*self._active.values(), *([self._round] if self._round else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is one more."""
        self._wake.set()

    async def _go_round(self) -> None:
        while True:
            wait_s = LONGEST_SLEEP_S
            if self.is_alone and len(self._active) < PARALLELISM:
                with contextlib.suppress(NotWritten):
                    wait_s = await self._start_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()

    async def _start_due(self) -> float:
        """Seconds until the next one is due."""
        now = int(time.time() * 1000)

        def find(db: sqlite3.Connection) -> tuple[list[tuple], int | None]:
            # those that are under way are among them: ask for so many more
            rows = db.execute(DUE, (now, PARALLELISM + len(self._active))).fetchall()
            following = db.execute(
                "SELECT min(callback_due_ms) FROM calls WHERE callback_due_ms > ?", (now,)
            ).fetchone()[0]
            return rows, following

        rows, following = await self.writer.write(find)
        for seq, head, attempts, result, body, tried in rows:
            if seq not in self._active and len(self._active) < PARALLELISM:
                call = Call.unpack(head, b"", attempts)
                coroutine = self._deliver(seq, call, Result.unpack(result, body or b""), tried)
                self._active[seq] = asyncio.get_running_loop().create_task(coroutine)
        if following is None:
            return LONGEST_SLEEP_S
        return min(max(following / 1000 - time.time(), 0.001), LONGEST_SLEEP_S)

    async def _deliver(self, seq: int, call: Call, result: Result, tried: int) -> None:
        try:
            said, wait_ms = await self.callbacks.deliver(call, result, tried)
            now = int(time.time() * 1000)
            is_over = bool(said)
            row = (
                None if is_over else now + wait_ms,
                tried + 1,
                said or "pending",
                now + self.results_keep_ms,
                seq,
                call.id,
            )

            def write(db: sqlite3.Connection) -> None:
                db.execute(
                    "UPDATE calls SET callback_due_ms = ?, callback_attempts = ?, "
                    "callback_state = ?, "
                    "forget_ms = CASE WHEN state = 2 THEN ? ELSE forget_ms END "
                    "WHERE seq = ? AND id = ? AND callback_due_ms IS NOT NULL",
                    row,
                )

            while True:
                try:
                    await self.writer.write(write)
                    return
                except NotWritten:
                    await asyncio.sleep(1.0)
        finally:
            del self._active[seq]
            self._wake.set()
