"""The queue in one SQLite file: what is accepted is on the disk, and runs at least once.

Each change is one operation of writer.py. A running call is claimed under a lease by its owner (one
controller's life). Whoever holds the lock beside the file knows that no other controller lives, and
takes over at once what a dead one had claimed; without the lock (an upgrade: the old controller is
still there) only leases that ran out are taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from proxy.functions.queue.calls import (
    CANCELLED,
    DEAD,
    DONE,
    QUEUED,
    RUNNING,
    STATES,
    Call,
    Listing,
    Refused,
    id_of,
    new_id,
)  # fmt: skip
from proxy.functions.queue.deliveries import Deliveries
from proxy.functions.queue.schedule import Schedule
from proxy.functions.queue.schema import (
    CLAIM,
    COLUMNS,
    COLUMNS_WITHOUT_BODIES,
    DROP,
    FINISH,
    FORGET,
    NUMBERS,
    OLDEST,
    REPLAY,
    REVIVED,
    ROW_BYTES,
    SCHEMA,
    SIZE,
    WAITING,
    read_salt,
    read_sums,
    record_of,
)  # fmt: skip
from proxy.functions.queue.writer import NotWritten, Writer

if TYPE_CHECKING:
    from proxy.functions.queue.callback import Callbacks
    from proxy.functions.queue.calls import Outcome, Record, Settings
    from proxy.functions.queue.runner import Runner

LEASE_MS = 60_000
RENEW_S = 20.0
SWEEP_S = 5.0
AGAIN_S = 1.0  # a result that could not be written is offered again
MOST_WAITING = 10_000  # accepted calls on their way to the disk
MOST_WAITING_BYTES = 64 << 20
FORGET_AT_ONCE = 1000
FREE_PAGES = 1000
def now_ms() -> int:
    return int(time.time() * 1000)


class SqliteQueue:
    """A Queue (calls.py) in the file `path`."""

    is_shared = False

    def __init__(self, path: str, settings: Settings, runner: Runner, callbacks: Callbacks) -> None:
        self.path = path
        self.settings = settings
        self.runner = runner
        self.owner = secrets.token_hex(8)
        self.salt = b""
        self.writer: Writer
        self.schedule = Schedule(self, settings.parallelism)
        self.deliveries = Deliveries(callbacks, settings.results_keep_ms)
        self.count = 0  # queued and running
        self.bytes = 0  # of all bodies, results' too
        self._waiting = 0
        self._waiting_bytes = 0
        self._lock_fd = -1
        self._is_alone = False
        self._reader: sqlite3.Connection | None = None
        self._reading = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------
    async def open(self) -> None:
        """Raises NotWritten or OSError when the file cannot be used."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._lock_fd = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not os.path.exists(self.path):  # bodies are nobody else's business
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.writer = Writer(self.path, SCHEMA)
        try:
            self.salt = await self.writer.write(read_salt)
            await self._take_over()
            self.count, self.bytes = await self.writer.write(read_sums)
        except NotWritten:
            await self.writer.close()
            os.close(self._lock_fd)
            raise
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        self.schedule.open()
        self.deliveries.open(self.writer)
        await self._look()

    async def close(self, grace_s: float = 0.0) -> None:
        """What still runs after `grace_s` is left to whoever opens the file next."""
        await self.schedule.close(grace_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.runner.client.close()
        await self.deliveries.close()
        await self.writer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def _take_over(self) -> None:
        """Free what nobody alive has claimed."""
        is_first = False
        if not self._is_alone:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._is_alone = self.deliveries.is_alone = is_first = True
        now = now_ms()
        latest = now + 10 * LEASE_MS if is_first else now

        def free(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE calls SET state = 0, due_ms = ?, owner = '' "
                "WHERE state = 1 AND owner <> ? AND due_ms < ?",
                (now, self.owner, latest),
            )

        await self.writer.write(free)

    async def _sweep(self) -> None:
        """Now and then: leases, results that were kept long enough, calls of a dead neighbour."""
        renewed_s = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            with contextlib.suppress(NotWritten):
                if time.monotonic() - renewed_s >= RENEW_S:
                    renewed_s = time.monotonic()
                    await self.writer.write(self._renew)
                await self._take_over()
                await self._look()
                while await self._forget_old() == FORGET_AT_ONCE:
                    pass

    def _renew(self, db: sqlite3.Connection) -> None:
        row = (now_ms() + LEASE_MS, self.owner)
        db.execute("UPDATE calls SET due_ms = ? WHERE state = 1 AND owner = ?", row)

    async def _look(self) -> None:
        for function, due_ms in await self.writer.write(lambda db: db.execute(WAITING).fetchall()):
            self.schedule.mark(function, due_ms)

    async def _forget_old(self) -> int:
        """Results go when their time is over, and the oldest before that when bodies and results
        take more than half of the room there is. How many went."""
        is_crowded = self.bytes > self.settings.most_bytes // 2
        until_ms = 1 << 62 if is_crowded else now_ms()

        def forget(db: sqlite3.Connection) -> list[tuple[int]]:
            rows = db.execute(FORGET, (until_ms, FORGET_AT_ONCE)).fetchall()
            db.execute(f"PRAGMA incremental_vacuum({FREE_PAGES})").fetchall()
            return rows

        rows = await self.writer.write(forget)
        self.bytes -= sum(it[0] for it in rows)
        return len(rows)

    # -- in -------------------------------------------------------------------------------------
    def make_id(self, function: str, idempotency_key: str) -> str:
        """The id that belongs to a key, the same each time; nobody else can tell it from the
        key."""
        return id_of(self.salt, function, idempotency_key)

    async def accept(self, call: Call, *, is_idempotent: bool) -> str:
        """The id of the call, which is on the disk now. A taken id is the same call if
        is_idempotent, else the call gets another. Raises Refused."""
        size = len(call.body) + ROW_BYTES
        settings = self.settings
        if (
            self._waiting >= MOST_WAITING
            or self._waiting_bytes + size > MOST_WAITING_BYTES
            or self.count + self._waiting >= settings.most_calls
            or self.bytes + self._waiting_bytes + size > settings.most_bytes
        ):
            raise Refused(503, "the queue is full", retry_after_s=5)
        self._waiting += 1
        self._waiting_bytes += size
        due_ms = now_ms()

        def insert(db: sqlite3.Connection) -> bool:
            row = (call.id, call.function, due_ms, call.pack(), call.body)
            done = db.execute(
                "INSERT OR IGNORE INTO calls (id, function, due_ms, head, body) "
                "VALUES (?, ?, ?, ?, ?)",
                row,
            )
            if done.rowcount == 0 and not is_idempotent:
                call.id = new_id()
                return insert(db)
            return done.rowcount > 0

        def count(is_new: bool) -> None:
            if is_new:
                self.count += 1
                self.bytes += size
                self.schedule.mark(call.function, due_ms)

        try:
            await self.writer.write(insert, count)
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size
        return call.id

    # -- through (schedule.Claimer) -------------------------------------------------------------
    async def claim(self, wants: dict[str, int]) -> tuple[list[tuple[int, Call]], dict[str, int]]:
        now = now_ms()

        def take(db: sqlite3.Connection) -> tuple[list[Any], dict[str, int]]:
            rows = []
            following = {}
            for function, count in wants.items():
                row = (self.owner, now + LEASE_MS, function, now, count)
                rows += db.execute(CLAIM, row).fetchall()
                due_ms = db.execute(
                    "SELECT min(due_ms) FROM calls WHERE state = 0 AND function = ?", (function,)
                ).fetchone()[0]
                if due_ms is not None:
                    following[function] = due_ms
            return rows, following

        rows, following = await self.writer.write(take)
        rows.sort(key=lambda row: row[0])
        calls = [(seq, Call.unpack(head, body, attempts)) for seq, head, body, attempts in rows]
        return calls, following

    async def run(self, call: Call) -> Outcome:
        return await self.runner.run(call)

    def parallelism_of(self, function: str) -> int:
        return self.runner.retry_of(function).parallelism

    async def finish(self, seq: int, call: Call, outcome: Outcome) -> None:
        """Write what became of it; the disk may take its time."""
        now = now_ms()
        state, result = outcome.state, outcome.result
        self.runner.tally.end(call.function, state)
        has_callback = bool(call.callback) and state in (DONE, DEAD)
        keeps_body = state in (QUEUED, DEAD)
        is_over = state in (DONE, CANCELLED)
        row: dict[str, Any] = {
            "seq": seq,
            "owner": self.owner,
            "state": NUMBERS[state],
            "due": now + outcome.wait_ms,
            "attempts": call.attempts + (state != CANCELLED),
            "forget": now + self.settings.results_keep_ms if is_over else None,
            "callback": now if has_callback else None,
            "said": "pending" if has_callback else "",
            "result": result.pack(),
            "result_body": None if state == QUEUED else result.body,
            "keeps": keeps_body,
        }

        is_kept = not is_over or has_callback or self.settings.results_keep_ms > 0

        def write(db: sqlite3.Connection) -> int:
            return db.execute(FINISH if is_kept else DROP, row).rowcount

        def count(is_ours: int) -> None:
            if is_ours:
                self.count -= state != QUEUED
                if not is_kept:
                    self.bytes -= ROW_BYTES
                elif state != QUEUED:
                    self.bytes += len(result.body)
                if not keeps_body:
                    self.bytes -= len(call.body)

        while True:
            try:
                await self.writer.write(write, count)
                break
            except NotWritten:
                await asyncio.sleep(AGAIN_S)
        if has_callback:
            self.deliveries.wake()
        if state == QUEUED:
            self.schedule.mark(call.function, row["due"])

    async def cancel(self, id: str) -> str:
        """The state it has then: CANCELLED, or the one that it ended in; "" for an unknown id.
        Raises NotWritten."""
        now = now_ms()

        def take_out(db: sqlite3.Connection) -> tuple[str, int, int]:
            found = db.execute(
                "SELECT seq, state, length(body) FROM calls WHERE id = ?", (id,)
            ).fetchone()
            if found is None:
                return "", 0, 0
            seq, number, size = found
            if STATES[number] == QUEUED:
                db.execute(
                    "UPDATE calls SET state = 4, body = x'', forget_ms = ? WHERE seq = ?",
                    (now + self.settings.results_keep_ms, seq),
                )
            return STATES[number], seq, size

        def count(found: tuple[str, int, int]) -> None:
            was, seq, size = found
            if was == QUEUED:
                self.count -= 1
                self.bytes -= size
            elif was == RUNNING:
                self.schedule.cancel(seq)

        was = (await self.writer.write(take_out, count))[0]
        return CANCELLED if was in (QUEUED, RUNNING) else was

    # -- looking (on a connection of its own, that writes never wait for) -------------------------
    async def read(self, sql: str, *values: Any) -> list[Any]:
        async with self._reading:
            return await asyncio.to_thread(self._read, sql, values)

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        if self._reader is None:
            self._reader = sqlite3.connect(
                self.path, timeout=5, isolation_level=None, check_same_thread=False
            )
            self._reader.execute("PRAGMA query_only = ON")
        return self._reader.execute(sql, values).fetchall()

    async def find(self, id: str) -> Record | None:
        rows = await self.read(f"SELECT {COLUMNS} FROM calls WHERE id = ?", id)
        return record_of(rows[0]) if rows else None

    async def listing(self, state: str, function: str, after: int, limit: int) -> Listing:
        """Calls in the order they came, bodies left out."""
        where = ["seq > ?"]
        values: list[Any] = [after]
        if state:
            where.append(f"state = {NUMBERS[state]}")
        if function:
            where.append("function = ?")
            values.append(function)
        rows = await self.read(
            f"SELECT {COLUMNS_WITHOUT_BODIES} FROM calls "
            f"WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?",
            *values,
            limit + 1,
        )
        return Listing(
            [record_of(row) for row in rows[:limit]],
            rows[limit - 1][0] if len(rows) > limit else 0,
        )

    async def counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for function, number, count in await self.read(
            "SELECT function, state, count(*) FROM calls GROUP BY state, function"
        ):
            found.setdefault(function, dict.fromkeys(STATES, 0))[STATES[number]] = count
        return found

    async def oldest(self) -> dict[str, float]:
        """function → when the oldest call was accepted that has not ended, in seconds."""
        rows = await self.read(OLDEST)
        return {function: Call.unpack(head, b"").accepted_ns / 1e9 for function, head in rows}

    async def replay(self, id: str) -> bool:
        """A dead one is queued again, as if it were new. False: there is no dead one of that id.
        Raises NotWritten."""
        now = now_ms()

        def revive(db: sqlite3.Connection) -> Any:
            row = db.execute(REVIVED, (id,)).fetchone()
            if row is not None:
                db.execute(REPLAY, (now, id))
            return row

        def count(row: Any) -> None:
            if row is not None:
                self.count += 1
                self.bytes -= row[1]
                self.schedule.mark(row[0], now)

        return await self.writer.write(revive, count) is not None

    async def forget(self, id: str) -> bool:
        """What has ended is deleted. Raises NotWritten."""

        def delete(db: sqlite3.Connection) -> Any:
            sql = f"DELETE FROM calls WHERE id = ? AND state >= 2 RETURNING {SIZE}"
            return db.execute(sql, (id,)).fetchone()

        def count(row: Any) -> None:
            if row is not None:
                self.bytes -= row[0]

        return await self.writer.write(delete, count) is not None
